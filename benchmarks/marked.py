"""Put generated tables between marks in pages that people write."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what is between two marks in a page."""
    before, rest = _cut(page, page.read_text(encoding="utf-8"), begin)
    _, after = _cut(page, rest, end)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def shown(page: Path, begin: str, end: str) -> str:
    """Return what is between two marks in a page."""
    _, rest = _cut(page, page.read_text(encoding="utf-8"), begin)
    return _cut(page, rest, end)[0].strip()


def _cut(page: Path, text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found:
        raise ValueError(f"{page} has no {mark}")
    return before, after
