"""Infer: from patches to scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..backends.base import Backend
from ..errors import BackendError
from ..records import Pixels, Query


def infer(
    backend: Backend,
    queries: Sequence[Query],
    patches: Pixels,
    *,
    features: bool = False,
    exemplar_scores: bool = False,
) -> None:
    """Score `queries`, whose patches are uint8 [len(queries)·D, P, P, 3].

    Raises:
        BackendError: the backend's scores are not finite numbers.
    """
    if not queries:
        return
    answer = backend.score(patches, features=features)
    # The spread over exemplars, in float64: for thousands of them, float32 sums would show.
    deviations = answer.exemplar_scores.std(axis=1, dtype=np.float64)
    if not np.isfinite(answer.score).all():
        raise BackendError(
            f"{backend.name} {backend.precision} on {backend.device} gave scores that are not finite numbers; "
            "try another --precision"
        )
    for index, query in enumerate(queries):
        query.score = float(answer.score[index])
        query.score_std = float(deviations[index])
        if features and answer.features is not None:
            query.features = answer.features[index]
        if exemplar_scores:
            query.exemplar_scores = answer.exemplar_scores[index]
