"""Spearman's rank correlation of long columns, with few copies of them in memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**18


def spearman(a: NDArray[np.float32], b: NDArray[np.float32]) -> float | None:
    """Compute Spearman's rank correlation of `a` and `b`, [N]; None if N < 3 or all values of one are equal.

    Equal values share the mean of their ranks. Memory is that of a sorted copy of both: ranks are looked up
    there, a block of values at a time. Ranks are doubled to be whole numbers; the mean of these is n - 1.
    """
    n = len(a)
    if n < 3:
        return None
    sorted_a, sorted_b = np.sort(a), np.sort(b)
    products = squares_a = squares_b = 0.0
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        ranks_a = _twice_ranks(sorted_a, a[block]) - (n - 1.0)
        ranks_b = _twice_ranks(sorted_b, b[block]) - (n - 1.0)
        products += float(ranks_a @ ranks_b)
        squares_a += float(ranks_a @ ranks_a)
        squares_b += float(ranks_b @ ranks_b)
    return products / math.sqrt(squares_a * squares_b) if squares_a and squares_b else None


def _twice_ranks(ordered: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return twice the rank, from 0, of each of `values` among `ordered`, int64 [N]."""
    order = np.argsort(values)  # neighbours are looked up near each other
    ascending = values[order]
    twice = np.empty(len(values), np.int64)
    twice[order] = np.searchsorted(ordered, ascending) + np.searchsorted(ordered, ascending, side="right") - 1
    return twice
