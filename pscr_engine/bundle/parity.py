"""Comparison of two models' scores of the same images: a graph's with PyTorch's, or a plan's with a graph's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..statistics.ranks import spearman
from .info import Parity

# Largest |difference| as a share of the label range, and smallest rank correlation.
TOLERANCES: dict[str, tuple[float, float | None]] = {
    "fp32": (1e-4, None),
    "fp16": (5e-3, 0.999),
    "bf16": (1e-2, 0.998),
    "int8": (2e-2, 0.995),
}


def compare(
    precision: str,
    reference: NDArray[np.float32],
    scores: NDArray[np.float32],
    label_range: tuple[float, float],
    *,
    accepted: bool = False,
) -> Parity:
    """Compare a graph's scores, or a plan's, with a reference, and return the parity report.

    Args:
        precision: which tolerance applies.
        reference: FP32 scores, float32 [N]: PyTorch's, or ONNX Runtime's.
        scores: the graph's scores of the same images, float32 [N].
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
