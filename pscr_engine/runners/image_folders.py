"""Notice when the folder of the images goes away during a run."""

from __future__ import annotations

from pathlib import Path


def identity_of(folder: str) -> tuple[int, int] | None:
    """Device and number of a folder; None if there is none (or none in particular)."""
    try:
        found = Path(folder).stat() if folder else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)
