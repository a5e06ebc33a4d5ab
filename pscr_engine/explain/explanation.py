"""The result of `Scorer.explain`: findings that can be saved as a page or as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .findings import Findings
from .save import save


@dataclass(frozen=True, slots=True, eq=False)
class Explanation(Findings):
    """Where an image's score comes from: findings that can be saved."""

    def save(self, path: str | Path, exemplar_root: str | Path | None = None) -> None:
        """Write a page (.html, needs jinja2) or a picture (.png).

        Args:
            path: the file; one that is there is replaced.
            exemplar_root: folder in which the exemplars' own images are found by their paths.

        Raises:
            UsageError: the file has another suffix.
            OutputError: it can't be written.
            MissingDependencyError: jinja2 is not installed.
        """
        save([self], path, exemplar_root)
