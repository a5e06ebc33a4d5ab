"""Inference patch after patch, in rounds: who is decided leaves, the others get their next patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import EarlyResult, Pixels, Query
from .base import StageSettings
from .decision import PatchRule
from .infer import BatchScores, assign, spread_of

# Patches of one call: enough to fill the cores, few enough for their caches.
_PATCHES_AT_ONCE = 32


class PatchEngine(Protocol):
    """What computes features of single patches, and scores of their means.

    Attributes:
        name: of the backend.
        precision: which of the bundle's graphs runs.
    """

    name: str
    precision: str

    def features(self, patches: Pixels) -> NDArray[np.float32]:
        """Compute the features of N patches, uint8 [N, P, P, 3] → float32 [N, C]."""
        ...

    def compare(self, features: NDArray[np.float32]) -> BatchScores:
        """Score B images by their features, float32 [B, C]."""
        ...


class Rounds:
    """Scores the images of a micro-batch in rounds, each with one more patch of every image that is not decided.

    An image's features are the mean of its patches so far. With all of them its score is the plain one.

    Args:
        engine: computes features and scores.
        rule: which patches, and when enough is known.
        settings: of the run.
    """

    runs = 1

    def __init__(self, engine: PatchEngine, rule: PatchRule, settings: StageSettings) -> None:
        self._engine, self._rule, self._settings = engine, rule, settings

    def score(self, queries: Sequence[Query], patches: Pixels) -> None:
        """Score `queries`, whose patches are uint8 [len(queries)·D, P, P, 3]."""
        s, order = self._settings, self._rule.order
        by_image = patches.reshape(len(queries), s.sampling.patches, *patches.shape[1:])
        left = np.arange(len(queries))
        sums: NDArray[np.float64] | None = None
        for used, patch in enumerate(order, 1):
            if not len(left) or s.stopping.is_set():
                return
            with s.stats.infer.measure(0):
                new = self._features(by_image[left, patch])
                sums = new.astype(np.float64) if sums is None else sums + new
                answer = self._engine.compare((sums / used).astype(np.float32))
                done = self._rule.decided(answer.score, used)
                self._settle([queries[index] for index in left[done]], answer, done, used)
                left, sums = left[~done], sums[~done]
            s.stats.infer.add(int(done.sum()), 0.0)

    def _features(self, patches: Pixels) -> NDArray[np.float32]:
        starts = range(0, len(patches), _PATCHES_AT_ONCE)
        return np.concatenate([self._engine.features(patches[at : at + _PATCHES_AT_ONCE]) for at in starts])

    def _settle(self, queries: Sequence[Query], answer: BatchScores, done: NDArray[np.bool_], used: int) -> None:
        s = self._settings
        assign(
            queries,
            answer.score[done],
            spread_of(answer.exemplar_scores[done]),
            answer.features[done] if s.features and answer.features is not None else None,
            answer.exemplar_scores[done] if s.exemplar_scores else None,
            precision=self._engine.precision,
        )
        for query in queries:
            if self._rule.threshold is not None and query.score is not None:
                low, high = self._rule.interval(query.score, used)
                query.early = EarlyResult(self._rule.decision(query.score), used, low, high)

    def close(self) -> None:
        """Do nothing: it has no threads of its own."""
