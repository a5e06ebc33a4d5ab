"""Limits on a risk from a sample: how far values must be allowed to go so that few others go further."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""How sure it is that the risk is kept, over the draw of the sample."""


def needed(risk: float, confidence: float = CONFIDENCE) -> int:
    """Return the size of the smallest sample that can show a risk of at most `risk`: if nothing in it is beyond."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk))


def allowed(count: int, risk: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many of `count` values may lie beyond a limit so that the risk is still shown; None if not even none.

    The largest j with P(Binomial(count, risk) <= j) <= 1 - confidence: were the risk any larger, so few would be a
    coincidence (Clopper and Pearson's one-sided bound).
    """
    if count < needed(risk, confidence):
        return None
    below, j = 0.0, 0
    while j <= count:
        log_choose = math.lgamma(count + 1) - math.lgamma(j + 1) - math.lgamma(count - j + 1)
        below += math.exp(log_choose + j * math.log(risk) + (count - j) * math.log1p(-risk))
        if below > 1 - confidence:
            break
        j += 1
    return j - 1


def limit(values: NDArray[np.floating], risk: float, confidence: float = CONFIDENCE) -> float | None:
    """Return the smallest limit that is passed by at most a share `risk` of all such values, or None.

    Args:
        values: [N], a sample: drawn like those to come, independently.
        risk: between 0 and 1.
        confidence: how sure that is, over the draw of the sample.

    Returns:
        A limit; None if the sample is too small, see `needed`.
    """
    beyond = allowed(len(values), risk, confidence)
    return None if beyond is None else float(np.sort(values)[len(values) - 1 - beyond])
