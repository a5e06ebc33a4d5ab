"""Opens the labelled images that `--dataset` names, by the reader for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pscr_export.ranges import SEED, Range, check_ranges

from pscr_engine.errors import UsageError, option

from .agiqa import agiqa_1k, agiqa_3k
from .aigciqa import aigciqa2023
from .labelled import Labelled
from .made_up import made_up
from .table import table

_DATABASES = {"agiqa-1k": agiqa_1k, "agiqa-3k": agiqa_3k, "aigciqa2023": aigciqa2023}
DATASETS = (*_DATABASES, "synthetic")


@dataclass(frozen=True, slots=True)
class Source:
    """Where labelled images come from.

    Args:
        dataset: name of a database, "synthetic", or a table's file.
        root: folder of the database, of a table's images, or for made-up images.
        label: which label; None for quality, or a table's column mos.
        split_column: a table's column that says train, test or val.
        images: how many are made up.
        seed: seed of the made-up images.
        path_column: a table's column of images; None for path.
    """

    dataset: str
    root: str | None = None
    label: str | None = None
    split_column: str | None = None
    images: int = 1000
    seed: int = 1
    path_column: str | None = None

    def __post_init__(self) -> None:
        check_ranges(self, {"images": Range(1), "seed": SEED})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, with absolute paths."""
        values = asdict(self)
        root = self._made_up_folder if self.dataset == "synthetic" else self.root
        values["root"] = None if root is None else str(Path(root).resolve())
        if self.dataset not in DATASETS:
            values["dataset"] = str(Path(self.dataset).resolve())
        return values

    @property
    def _made_up_folder(self) -> str:
        return self.root or "synthetic"

    def open(self) -> Labelled:
        """Read the list of images and their labels.

        Raises:
            UsageError: an unknown name, no folder for a database, or a column where there is no table.
            DatasetError: the labels are missing or malformed.
        """
        for flag, column in (("--path-column", self.path_column), ("--split-column", self.split_column)):
            if column is not None and self.dataset in DATASETS:
                raise UsageError(f"{option(flag)} {column}: is for tables, and {self.dataset} is none; leave it out")
        if self.dataset == "synthetic":
            return made_up(Path(self._made_up_folder), self.images, self.seed)
        if self.dataset in _DATABASES:
            if self.root is None:
                raise UsageError(f"{option('--dataset')} {self.dataset}: name its folder with {option('--data')}")
            return _DATABASES[self.dataset](Path(self.root), self.label or "quality")
        if "." not in Path(self.dataset).name:
            raise UsageError(
                f"{option('--dataset')} {self.dataset!r}: choose from {', '.join(DATASETS)}, or name a table's file"
            )
        root = None if self.root is None else Path(self.root)
        return table(Path(self.dataset), self.label or "mos", root, self.split_column, self.path_column or "path")
