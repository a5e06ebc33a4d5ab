"""What every inference backend offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Pixels


@dataclass(frozen=True, slots=True)
class BatchScores:
    """A backend's answer for B images.

    Args:
        score: float32 [B].
        exemplar_scores: float32 [B, M], label + delta.
        features: float32 [B, C] if they were asked for.
    """

    score: NDArray[np.float32]
    exemplar_scores: NDArray[np.float32]
    features: NDArray[np.float32] | None


class Backend(Protocol):
    """Runs the scoring graph of one bundle, with its exemplar cache, on one device.

    Attributes:
        name: as in `--backend`.
        device: as in `--devices`.
        precision: which of the bundle's graphs runs.
        batch_size: how many images a batch should have for good throughput.
    """

    name: str
    device: str
    precision: str
    batch_size: int

    def score(self, patches: Pixels, *, features: bool = False) -> BatchScores:
        """Score the images whose patches, uint8 [B·D, P, P, 3], are given; D patches after another per image."""
        ...
