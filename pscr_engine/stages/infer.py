"""Infer: from patches to scores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..records import Pixels, Query, Status
from .base import StageSettings


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
    if answer.score.shape != (len(queries),):
        raise BackendError(f"{backend.name} gave scores {list(answer.score.shape)} for {len(queries)} images")
    assign(
        queries,
        answer.score,
        spread_of(answer.exemplar_scores),
        answer.features if features else None,
        answer.exemplar_scores if exemplar_scores else None,
        precision=backend.precision,
    )


def spread_of(exemplar_scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the spread over exemplars, [B, M] → float64 [B]: for thousands of them, float32 sums would show."""
    return np.asarray(exemplar_scores.std(axis=1, dtype=np.float64))


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


class BatchInference(Protocol):
    """What scores the images of micro-batches.

    Attributes:
        runs: how many threads should call `score` at once.
    """

    runs: int

    def score(self, queries: Sequence[Query], patches: Pixels) -> None:
        """Score `queries`, whose patches are uint8 [len(queries)·D, P, P, 3]."""
        ...

    def close(self) -> None:
        """End its threads."""
        ...


class Inference:
    """Scores the images of micro-batches batch by batch; side by side, if the backend wants several at once.

    Args:
        backend: scores the patches.
        settings: of the run.
        counts: whether its images are counted; if not, its time alone is.
    """

    def __init__(self, backend: PatchScorer, settings: StageSettings, *, counts: bool = True) -> None:
        self._backend, self._settings, self._counts = backend, settings, counts
        self.runs = backend.runs
        # Batches of two micro-batches share these threads: none of them idles while another has batches left.
        self._runs = ThreadPoolExecutor(backend.runs, "infer") if backend.runs > 1 else None

    def score(self, queries: Sequence[Query], patches: Pixels) -> None:
        """Score `queries`, whose patches are uint8 [len(queries)·D, P, P, 3]."""
        starts = range(0, len(queries), self._settings.batch_size)
        if self._runs is None:
            for start in starts:
                self._batch(queries, patches, start)
        else:
            for done in [self._runs.submit(self._batch, queries, patches, start) for start in starts]:
                done.result()

    def _batch(self, queries: Sequence[Query], patches: Pixels, start: int) -> None:
        s, D = self._settings, self._settings.sampling.patches
        if s.stopping.is_set():
            return
        queries = queries[start : start + s.batch_size]
        patches = patches[start * D : (start + len(queries)) * D]
        with s.stats.infer.measure(len(queries) if self._counts else 0):
            infer(self._backend, queries, patches, features=s.features, exemplar_scores=s.exemplar_scores)

    def close(self) -> None:
        """End its threads."""
        if self._runs is not None:
            self._runs.shutdown(cancel_futures=True)
