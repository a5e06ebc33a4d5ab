"""The rule by which an image is kept or dropped before all of its patches have been scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEEP, DROP = "keep", "drop"
DEFAULT_RISK = 0.005


@dataclass(frozen=True, slots=True)
class PatchRule:
    """Which patches are scored, in which order, and when enough is known.

    Args:
        order: indices of the patches to score at most, K of them, the first first.
        threshold: images with at least this score are kept; None if nothing is decided: all K patches are scored.
        margins: float64 [K - 1]; after k patches, a score further than `margins[k - 1]` from the threshold decides.
        reach: float64 [K - 1]; the exact score is within `reach[k - 1]` of one by k patches, but for a share of
            images as large as the risk.
    """

    order: tuple[int, ...]
    threshold: float | None = None
    margins: NDArray[np.float64] | None = None
    reach: NDArray[np.float64] | None = None

    def decided(self, scores: NDArray[np.float32], patches: int) -> NDArray[np.bool_]:
        """Tell which of N images need no further patch, bool [N], by their scores from `patches` patches."""
        if patches == len(self.order):
            return np.ones(len(scores), bool)
        if self.threshold is None or self.margins is None:
            return np.zeros(len(scores), bool)
        # A score that is not finite is never further: it is looked at with all patches.
        return np.asarray(np.abs(scores.astype(np.float64) - self.threshold) > self.margins[patches - 1])

    def decision(self, score: float) -> str:
        """Return what becomes of an image with that score."""
        assert self.threshold is not None
        return KEEP if score >= self.threshold else DROP

    def interval(self, score: float, patches: int) -> tuple[float, float]:
        """Return the smallest and the largest exact score that a score from `patches` patches may stand for."""
        if patches == len(self.order) or self.reach is None:
            return score, score
        reach = float(self.reach[patches - 1])
        return score - reach, score + reach
