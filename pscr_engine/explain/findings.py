"""What an explanation consists of: scores of patches, and exemplars that are near."""

from __future__ import annotations

from dataclasses import dataclass

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
        index: its place in the exemplar cache, from 0.
        path: as the list of exemplars named it.
        sha256: hexadecimal digest of its file.
        label: its score, on the label scale.
        distance: Euclidean, between its features and the image's.
        delta: predicted difference image − exemplar, on the label scale.
    """

    index: int
    path: str
    sha256: str
    label: float
    distance: float
    delta: float
