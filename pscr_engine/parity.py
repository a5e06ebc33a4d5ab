"""Compare scores of one and the same images: of a graph with the PyTorch model's, of a plan with a graph's."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .bundle import Parity

# Largest |difference| as a share of the label range, and smallest rank correlation.
TOLERANCES: dict[str, tuple[float, float | None]] = {
    "fp32": (1e-4, None),
    "fp16": (5e-3, 0.999),
    "int8": (2e-2, 0.995),
}

_BLOCK = 2**18


def compare(
    precision: str,
    reference: NDArray[np.float32],
    scores: NDArray[np.float32],
    label_range: tuple[float, float],
    *,
    accepted: bool = False,
) -> Parity:
    """The parity report of a graph.

    Args:
        precision: which tolerance applies.
        reference: FP32 scores, [N]: PyTorch's, or ONNX Runtime's.
        scores: the graph's scores of the same images, [N].
        label_range: smallest and largest label.
        accepted: whether the user wants this precision in any case.
    """
    share, min_srcc = TOLERANCES[precision]
    difference = np.abs(scores.astype(np.float64) - reference.astype(np.float64))
    return Parity(
        images=len(reference),
        max_abs_diff=float(difference.max()),
        mean_abs_diff=float(difference.mean()),
        srcc=spearman(reference, scores),
        tolerance=share * (label_range[1] - label_range[0]),
        min_srcc=min_srcc,
        accepted=accepted,
    )


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
