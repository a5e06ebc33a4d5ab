"""Spearman's rank correlation of columns too long for many copies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**18


def spearman(a: NDArray[np.float32], b: NDArray[np.float32]) -> float | None:
    """Spearman's rank correlation; None where it says nothing: below three values, or all equal.

    Equal values share the mean of their places. Memory is that of a sorted copy of both: a rank is looked
    up there, a block of values at a time. Twice a rank is a whole number, and n - 1 their mean.
    """
    n = len(a)
    if n < 3:
        return None
    sorted_a, sorted_b = np.sort(a), np.sort(b)
    products = squares_a = squares_b = 0.0
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        of_a, of_b = (_twice_ranks(values, of[block]) - (n - 1.0) for values, of in ((sorted_a, a), (sorted_b, b)))
        products += float(of_a @ of_b)
        squares_a += float(of_a @ of_a)
        squares_b += float(of_b @ of_b)
    return products / math.sqrt(squares_a * squares_b) if squares_a and squares_b else None


def _twice_ranks(ordered: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Twice the rank, from 0, of each of `values` among `ordered`."""
    order = np.argsort(values)  # neighbours are looked up near each other
    ascending = values[order]
    twice = np.empty(len(values), np.int64)
    twice[order] = np.searchsorted(ordered, ascending) + np.searchsorted(ordered, ascending, side="right") - 1
    return twice
