"""Infer: from patches to scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..backends.base import Backend
from ..errors import BackendError
from ..records import Pixels, Query, Status


def infer(
    backend: Backend,
    queries: Sequence[Query],
    patches: Pixels,
    *,
    features: bool = False,
    exemplar_scores: bool = False,
) -> None:
    """Score `queries`, whose patches are uint8 [len(queries)·D, P, P, 3].

    An image whose score is not a finite number has failed, like one that can't be decoded: in FP16 a
    network may overflow on one image in millions.

    Raises:
        BackendError: the backend gave another number of scores than there are images.
    """
    if not queries:
        return
    answer = backend.score(patches, features=features)
    # The spread over exemplars, in float64: for thousands of them, float32 sums would show.
    if answer.score.shape != (len(queries),):
        raise BackendError(f"{backend.name} gave scores {list(answer.score.shape)} for {len(queries)} images")
    deviations = answer.exemplar_scores.std(axis=1, dtype=np.float64)
    finite = np.isfinite(answer.score) & np.isfinite(deviations)
    for index, query in enumerate(queries):
        if not finite[index]:
            query.fail(Status.UNDECODABLE, f"its score is not a finite number in {backend.precision}")
            continue
        query.score = float(answer.score[index])
        query.score_std = float(deviations[index])
        if features and answer.features is not None:
            query.features = answer.features[index]
        if exemplar_scores:
            query.exemplar_scores = answer.exemplar_scores[index]
