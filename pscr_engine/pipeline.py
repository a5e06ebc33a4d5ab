"""Wires the stages: queries in, the same queries out, in the same order, with a score or a status."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from spdl.pipeline import PipelineBuilder, PipelineFailure

from .backends.base import Backend
from .host import usable_cpus
from .records import MicroBatch, Query, RunStats
from .sampling import Sampling
from .stages.decode import DecodeOptions, decode
from .stages.fetch import fetch
from .stages.infer import infer
from .stages.sample import Sampler

# Enough queries to make the hand-over between threads cheap, few enough to keep memory small.
_MICRO_BATCH_ROWS = 16
# Reading ahead stops at this many bytes per micro-batch; the rest is read when it is decoded.
_READ_AHEAD_BYTES = 64 * 2**20
_FETCH_THREADS = 4
_QUEUED_RESULTS = 2


@dataclass(slots=True)
class Pipeline:
    """fetch → decode → sample → infer for one backend, all at once, in threads.

    Args:
        backend: what scores the patches.
        sampling: how patches are taken.
        decoding: what images are accepted.
        batch_size: B, images per batch.
        features: whether to keep each image's features.
        exemplar_scores: whether to keep each image's score against each exemplar.
        decode_threads: how many images are decoded at once.
        stats: counters of every stage, added to as the pipeline runs.
    """

    backend: Backend
    sampling: Sampling
    decoding: DecodeOptions
    batch_size: int
    features: bool = False
    exemplar_scores: bool = False
    decode_threads: int = field(default_factory=usable_cpus)
    stats: RunStats = field(default_factory=RunStats)

    def run(self, queries: Iterable[Query]) -> Iterator[Query]:
        """Every query comes out once, in order.

        Raises:
            Exception: whatever a stage or `queries` raised; the threads have stopped by then.
        """
        rows = self.batch_size * math.ceil(_MICRO_BATCH_ROWS / self.batch_size)
        stages = _Stages(self, Sampler(self.sampling, rows, self.decoding.max_pixels))
        builder: PipelineBuilder[MicroBatch, MicroBatch] = PipelineBuilder()
        threads = (
            builder.add_source(stages.micro_batches(queries, rows))
            .pipe(stages.guarded(stages.fetch), name="fetch", concurrency=_FETCH_THREADS, output_order="input")
            .pipe(
                stages.guarded(stages.decode_and_sample),
                name="decode",
                concurrency=self.decode_threads,
                output_order="input",
            )
            .pipe(stages.guarded(stages.infer), name="infer")
            .add_sink(_QUEUED_RESULTS)
            .build(
                num_threads=_FETCH_THREADS + self.decode_threads + 2,
                max_failures=0,  # a stage that raises ends the run: nothing is ever dropped
                use_thread_output_queue=True,
            )
        )
        try:
            with threads.auto_stop():
                for batch in threads:
                    yield from batch.queries
        except PipelineFailure as failure:
            # The library wraps what a stage raised; callers want the error itself.
            raise (stages.errors or failure.exceptions)[0] from None


@dataclass(frozen=True, slots=True)
class _Stages:
    """What the threads call, one micro-batch at a time."""

    pipeline: Pipeline
    sampler: Sampler
    errors: list[BaseException] = field(default_factory=list)

    def guarded(self, stage: Callable[[MicroBatch], MicroBatch]) -> Callable[[MicroBatch], MicroBatch]:
        """`stage`, with what it raises kept in `errors`."""

        def call(batch: MicroBatch) -> MicroBatch:
            try:
                return stage(batch)
            except BaseException as error:
                self.errors.append(error)
                # The library waits for ever on what is no Exception.
                raise RuntimeError("a stage has failed") from error

        return call

    def micro_batches(self, queries: Iterable[Query], rows: int) -> Iterator[MicroBatch]:
        """Groups of `rows` queries; the last may be smaller."""
        try:
            queries = iter(queries)
            while group := list(islice(queries, rows)):
                yield MicroBatch(group)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.errors.append(error)
            raise RuntimeError("the source has failed") from error

    def fetch(self, batch: MicroBatch) -> MicroBatch:
        with self.pipeline.stats.fetch.measure(len(batch.queries)):
            held = 0
            for query in batch.queries:
                if held < _READ_AHEAD_BYTES:
                    fetch(query)
                    held += len(query.data or b"")
        return batch

    def decode_and_sample(self, batch: MicroBatch) -> MicroBatch:
        """Both in one thread, image by image: so few decoded images are in memory, however large."""
        stats, buffer = self.pipeline.stats, self.sampler.begin()
        for query in batch.queries:
            if query.data is None and query.pixels is None:
                with stats.fetch.measure(0):
                    fetch(query)
            with stats.decode.measure(1):
                decode(query, self.pipeline.decoding)
            if query.ok:
                with stats.sample.measure(1):
                    self.sampler.sample(query, batch, buffer)
        self.sampler.finish(batch, buffer)
        return batch

    def infer(self, batch: MicroBatch) -> MicroBatch:
        p, D = self.pipeline, self.pipeline.sampling.patches
        assert batch.patches is not None
        with p.stats.infer.measure(len(batch.sampled)):
            for start in range(0, len(batch.sampled), p.batch_size):
                queries = batch.sampled[start : start + p.batch_size]
                patches = batch.patches[start * D : (start + len(queries)) * D]
                infer(p.backend, queries, patches, features=p.features, exemplar_scores=p.exemplar_scores)
        self.sampler.release(batch)
        return batch
