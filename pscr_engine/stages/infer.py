"""Infer: from patches to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..records import Pixels, Query, Status


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


class PatchScorer(Protocol):
    """What scores patches that lie in the host's memory.

    Attributes:
        name: of the backend, as in `--backend`.
        precision: which of the bundle's graphs runs.
        runs: how many threads should call `score` at once for good throughput.
    """

    name: str
    precision: str
    runs: int

    def score(self, patches: Pixels, *, features: bool = False) -> BatchScores:
        """Score B images by their patches, uint8 [B·D, P, P, 3]; D patches after another per image."""
        ...


def infer(
    backend: PatchScorer,
    queries: Sequence[Query],
    patches: Pixels,
    *,
    features: bool = False,
    exemplar_scores: bool = False,
) -> None:
    """Score `queries`, whose patches are uint8 [len(queries)·D, P, P, 3].

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
    assign(
        queries,
        answer.score,
        deviations,
        answer.features if features else None,
        answer.exemplar_scores if exemplar_scores else None,
        precision=backend.precision,
    )


def assign(
    queries: Sequence[Query | None],
    score: NDArray[np.floating],
    score_std: NDArray[np.floating],
    features: NDArray[np.float32] | None = None,
    exemplar_scores: NDArray[np.float32] | None = None,
    *,
    precision: str,
) -> None:
    """Give each query its row of the results; None is an unused slot.

    An image whose score is not a finite number has failed, like one that can't be decoded: in FP16 a
    network may overflow on one image in millions.
    """
    finite = np.isfinite(score) & np.isfinite(score_std)
    for index, query in enumerate(queries):
        if query is None:
            continue
        if not finite[index]:
            query.fail(Status.UNDECODABLE, f"its score is not a finite number in {precision}")
            continue
        query.score = float(score[index])
        query.score_std = float(score_std[index])
        if features is not None:
            query.features = features[index]
        if exemplar_scores is not None:
            query.exemplar_scores = exemplar_scores[index]
