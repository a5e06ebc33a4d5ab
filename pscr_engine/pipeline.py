"""Wires the stages: queries in, the same queries out with a score or a status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .backends.base import Backend
from .records import Query, RunStats
from .sampling import Sampling
from .stages.decode import DecodeOptions, decode
from .stages.fetch import fetch
from .stages.infer import infer
from .stages.sample import PatchBatch


@dataclass(slots=True)
class Pipeline:
    """fetch → decode → sample → infer for one backend.

    Args:
        backend: what scores the patches.
        sampling: how patches are taken.
        decoding: what images are accepted.
        batch_size: B, images per batch.
        features: whether to keep each image's features.
        exemplar_scores: whether to keep each image's score against each exemplar.
        stats: counters of every stage, added to as the pipeline runs.
    """

    backend: Backend
    sampling: Sampling
    decoding: DecodeOptions
    batch_size: int
    features: bool = False
    exemplar_scores: bool = False
    stats: RunStats = field(default_factory=RunStats)

    def run(self, queries: Iterable[Query]) -> Iterator[Query]:
        """Every query comes out once, in any order; batches are full of images that could be decoded."""
        patches = PatchBatch(self.sampling, self.batch_size, self.decoding.max_pixels)
        ready: list[Query] = []
        for query in queries:
            with self.stats.fetch.measure(1):
                fetch(query)
            with self.stats.decode.measure(1):
                decode(query, self.decoding)
            if not query.ok:
                yield query
                continue
            ready.append(query)
            if len(ready) == self.batch_size:
                yield from self._score(ready, patches)
                ready = []
        yield from self._score(ready, patches)

    def _score(self, queries: list[Query], patches: PatchBatch) -> list[Query]:
        with self.stats.sample.measure(len(queries)):
            sampled, array = patches.fill(queries)
        with self.stats.infer.measure(len(sampled)):
            infer(self.backend, sampled, array, features=self.features, exemplar_scores=self.exemplar_scores)
        return queries
