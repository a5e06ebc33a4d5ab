"""The labelled images that every reader of a database returns, and what such readers share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pscr_engine.errors import DatasetError, wrong_usage

_MOST_LISTED = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled image.

    Args:
        row: its index in the database's own list, from 0; splits are made by it.
        name: as the list has it.
        file: the image.
        mos: the label.
        prompt: text that it was made from, or a number that stands for it; None if not known.
        part: "train", "test" or "val", if the list itself has a split.
    """

    row: int
    name: str
    file: Path
    mos: float
    prompt: str | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled set of images.

    Args:
        name: name of the database, as in `--dataset`.
        label: which of the database's labels.
        items: the images that are used, by row.
        rows: length of the database's own list, left-out rows included.
        label_range: smallest and largest label of the scale.
        paper_every: n, where the paper's split tests on every n-th row; None if there is no such split.
        notes: what a user should know: rows left out, for example.
    """

    name: str
    label: str
    items: Sequence[Item]
    rows: int
    label_range: tuple[float, float]
    paper_every: int | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    def check_files(self) -> None:
        """Raise DatasetError, naming what is missing, unless every image is there."""
        missing = [str(item.file) for item in self.items if not item.file.is_file()]
        if missing:
            raise DatasetError(
                f"{self.name}: {len(missing)} of {len(self.items)} images are missing, {listed(missing)}"
            )


def image_folder(root: Path, names: Iterable[str], example: str) -> Path:
    """Return the one of several folders below `root` that holds `example`, the first of all if none does."""
    folders = [root / name for name in names]
    return next((folder for folder in folders if (folder / example).is_file()), folders[0])


def number(value: object, where: str, faults: list[str]) -> float:
    """Convert a label to a number, and add a line to `faults` unless it is finite."""
    try:
        label = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        label = math.nan
    if not math.isfinite(label):
        faults.append(f"{where}: label {value!r} is not a finite number")
    return label


def raise_faults(source: Path, faults: Sequence[str]) -> None:
    """Raise DatasetError if there are any faults."""
    if faults:
        raise DatasetError(f"{source}: {len(faults)} rows can't be used: {listed(faults, '; ')}")


def listed(things: Sequence[str], between: str = ", ") -> str:
    """List the first few of some things, and how many more there are."""
    more = f" and {len(things) - _MOST_LISTED} more" if len(things) > _MOST_LISTED else ""
    return between.join(things[:_MOST_LISTED]) + more


def require_file(path: Path, what: str) -> Path:
    """Return `path`, or raise DatasetError, saying what the file should hold, if there is none."""
    if not path.is_file():
        raise wrong_usage(DatasetError(f"{path}: no such file; it should hold {what}"))
    return path
