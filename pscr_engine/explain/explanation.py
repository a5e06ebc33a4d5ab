"""What `Scorer.explain` gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bundle import Bundle
from ..records import Pixels
from .findings import NearExemplar, PatchScore


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where an image's score comes from.

    Args:
        name: the image's path, or what else it is called.
        pixels: the image, uint8 [H, W, 3], RGB.
        score: mean over exemplars of label + delta, on the label scale.
        score_std: population standard deviation over exemplars of label + delta.
        patches: the D patches in the order in which they are taken.
        nearest: the nearest exemplars, the nearest first.
        median_distance: of all exemplars, to tell what is near.
        bundle: the model.
        precision, device: what computed it.
    """

    name: str
    pixels: Pixels
    score: float
    score_std: float
    patches: tuple[PatchScore, ...]
    nearest: tuple[NearExemplar, ...]
    median_distance: float
    bundle: Bundle
    precision: str
    device: str

    @property
    def mean_patch_score(self) -> float:
        """Mean of the patches' scores; not the image's score, since the head is not linear in the mean feature."""
        return float(np.mean([patch.score for patch in self.patches]))

    def save(self, path: str | Path, exemplar_root: str | Path | None = None) -> None:
        """Write a page (.html, needs jinja2) or a picture (.png).

        Args:
            path: the file; one that is there is replaced.
            exemplar_root: folder in which the exemplars' own images are found by their paths.

        Raises:
            UsageError: another suffix.
            OutputError: it can't be written.
            MissingDependencyError: jinja2 is not installed.
        """
        from .save import save

        save([self], path, exemplar_root)
