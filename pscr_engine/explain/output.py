"""Writes explanations as a page or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..atomic import atomic_file
from ..errors import OutputError, UsageError
from .explanation import Explanation

SUFFIXES = (".html", ".png")


def check_output(path: Path) -> str:
    """The suffix, ".html" or ".png".

    Raises:
        UsageError: it has another.
        OutputError: there is no folder for it.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: an explanation is a page or a picture; name it {' or '.join('*' + s for s in SUFFIXES)}"
        )
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
    return suffix


def save(explanations: Sequence[Explanation], path: str | Path, exemplar_root: str | Path | None = None) -> None:
    """Write all of them to one file, one after another; see `Explanation.save`."""
    path = Path(path)
    root = None if exemplar_root is None else Path(exemplar_root)
    if check_output(path) == ".html":
        from .page import render

        content = render(explanations, root)
    else:
        from .picture import draw

        content = draw(explanations, root)
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror})") from error
