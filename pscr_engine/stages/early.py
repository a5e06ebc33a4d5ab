"""Inference patch after patch, in rounds: who is decided leaves, the others get their next patch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import EarlyResult, Pixels, Query
from .base import StageSettings
from .decision import PatchRule
from .infer import BatchScores, assign, spread_of

# Patches of one call: more are no faster (measured), and take more memory.
_PATCHES_AT_ONCE = 16
# Images that go through rounds together, in one thread: enough for a batch when few are left.
_GROUP = 16


class PatchEngine(Protocol):
    """What computes features of single patches, and scores of their means.

    Attributes:
        name: of the backend.
        precision: which of the bundle's graphs runs.
        runs: how many threads should call at once for good throughput.
    """

    name: str
    precision: str
    runs: int

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

    def __init__(self, engine: PatchEngine, rule: PatchRule, settings: StageSettings) -> None:
        self._engine, self._rule, self._settings = engine, rule, settings
        self.runs = engine.runs
        # Groups of two micro-batches share these threads: none of them idles while another has groups left.
        self._groups = ThreadPoolExecutor(engine.runs, "infer") if engine.runs > 1 else None

    def score(self, queries: Sequence[Query], patches: Pixels) -> None:
        """Score `queries`, whose patches are uint8 [len(queries)·D, P, P, 3]."""
        by_image = patches.reshape(len(queries), self._settings.sampling.patches, *patches.shape[1:])
        if self._groups is None:
            self._score(queries, by_image)
            return
        starts = range(0, len(queries), _GROUP)
        groups = [(queries[at : at + _GROUP], by_image[at : at + _GROUP]) for at in starts]
        for done in [self._groups.submit(self._score, *group) for group in groups]:
            done.result()

    def _score(self, queries: Sequence[Query], by_image: Pixels) -> None:
        """Score images, whose patches are uint8 [N, D, P, P, 3], round by round."""
        s, order = self._settings, self._rule.order
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
        """End its threads."""
        if self._groups is not None:
            self._groups.shutdown(cancel_futures=True)
