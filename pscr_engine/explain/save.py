"""The writing of explanations to a file, as an HTML page or as a PNG picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..atomic import atomic_file, check_output_file
from ..errors import OutputError, UsageError
from ..html import require_jinja2
from .findings import Findings

SUFFIXES = (".html", ".png")


def check_output(path: Path) -> str:
    """Check that explanations can be written to `path`, and return its suffix, ".html" or ".png".

    Raises:
        UsageError: it has another suffix.
        OutputError: it is a folder, or its folder doesn't exist.
        MissingDependencyError: it is to be a page, and jinja2 is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: an explanation is a page or a picture; name it {' or '.join('*' + s for s in SUFFIXES)}"
        )
    check_output_file(path, "explanation")
    if suffix == ".html":
        require_jinja2()
    return suffix


def save(all_findings: Iterable[Findings], path: str | Path, exemplar_root: str | Path | None = None) -> None:
    """Write explanations to one file, as `Explanation.save` does for one; write nothing if there are none."""
    path = Path(path)
    root = None if exemplar_root is None else Path(exemplar_root)
    if check_output(path) == ".html":
        from .page import render as rendered
    else:
        from .picture import draw as rendered
    content = rendered(all_findings, root)
    if content is None:
        return
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror})") from error
