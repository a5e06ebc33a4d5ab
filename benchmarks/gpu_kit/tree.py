"""Copy the project's own files that the host needs: the packages, the benchmarks and the reference data."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..common import ROOT

_FOLDERS = (
    ("pscr_engine", "site/pscr_engine"),
    ("export/pscr_export", "site/pscr_export"),
    ("training/pscr_training", "site/pscr_training"),
    ("benchmarks", "tree/benchmarks"),
    ("tests/reference", "tree/tests/reference"),
)
_NOT = shutil.ignore_patterns("__pycache__", "*.pyc", "plans", "results")


def project_tree(target: Path) -> None:
    """Copy the files: packages as the project's wheel would install them, the rest as in a checkout."""
    for source, destination in _FOLDERS:
        shutil.copytree(ROOT / source, target / destination, ignore=_NOT)
    (target / "tree/benchmarks/results").mkdir()
