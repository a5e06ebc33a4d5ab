"""The findings of an explanation: the scores of an image and its patches, and the nearest exemplars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..bundle import Bundle
from ..records import Pixels
from ..sampling import Box


@dataclass(frozen=True, slots=True)
class PatchScore:
    """One patch, scored by itself: the head applied to the patch's own feature, as if all D patches were this one.

    Args:
        box: where it lies in the image, in pixels of the image as it was given.
        score: mean over exemplars of label + delta, on the label scale.
        score_std: population standard deviation over exemplars of label + delta.
    """

    box: Box
    score: float
    score_std: float


@dataclass(frozen=True, slots=True)
class NearExemplar:
    """An exemplar whose features are near the image's.

    Args:
        index: its index in the exemplar cache, from 0.
        path: its path, as the list of exemplars named it.
        sha256: hexadecimal digest of its file.
        label: its score, on the label scale.
        distance: Euclidean distance between its features and the image's.
        delta: predicted difference image − exemplar, on the label scale.
    """

    index: int
    path: str
    sha256: str
    label: float
    distance: float
    delta: float


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """The numbers that say where an image's score comes from.

    Args:
        name: the image's path, or what else it is called.
        pixels: the image, uint8 [H, W, 3], RGB.
        score: mean over exemplars of label + delta, on the label scale.
        score_std: population standard deviation over exemplars of label + delta.
        patches: the D patches in the order in which they are taken.
        nearest: the nearest exemplars, the nearest first.
        median_distance: median distance of all exemplars, for comparison.
        bundle: the bundle that scored the image.
        precision, device: precision and device of the backend that ran it.
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
        """Return the mean of the patches' scores; the image's may differ: the head isn't linear in the mean."""
        return float(np.mean([patch.score for patch in self.patches]))
