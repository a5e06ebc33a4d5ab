"""Wires the stages: queries in, the same queries out, in the same order, with a score or a status."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from time import perf_counter

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

    @property
    def rows_per_micro_batch(self) -> int:
        """How many queries a micro-batch has at most: whole batches."""
        return self.batch_size * math.ceil(_MICRO_BATCH_ROWS / self.batch_size)

    def run(self, queries: Iterable[Query]) -> Iterator[Query]:
        """Every query comes out once, in order.

        Raises:
            Exception: whatever a stage or `queries` raised; the threads have stopped by then.
        """
        with closing(self.run_batches(self.micro_batches(queries))) as batches:
            for batch in batches:
                yield from batch.queries

    def micro_batches(self, queries: Iterable[Query], tag: object = None) -> Iterator[MicroBatch]:
        """`queries` in groups of `rows_per_micro_batch`; the last may be smaller."""
        queries = iter(queries)
        while True:
            with self.stats.source.measure(0):
                group = list(islice(queries, self.rows_per_micro_batch))
            if not group:
                return
            self.stats.source.items += len(group)
            yield MicroBatch(group, tag=tag)

    def run_batches(self, batches: Iterable[MicroBatch]) -> Generator[MicroBatch]:
        """Every micro-batch comes out once, in order, whether it holds queries or not.

        Raises:
            Exception: whatever a stage or `batches` raised; the threads have stopped by then.
        """
        stages = _Stages(self, Sampler(self.sampling, self.rows_per_micro_batch, self.decoding.max_pixels))
        builder: PipelineBuilder[MicroBatch, MicroBatch] = PipelineBuilder()
        # Threads of their own, and one task more than threads: the next micro-batch is there when one is done.
        decoders = ThreadPoolExecutor(self.decode_threads, "decode")
        threads = (
            builder.add_source(stages.source(batches))
            .pipe(stages.guarded(stages.fetch), name="fetch", concurrency=_FETCH_THREADS, output_order="input")
            .pipe(
                stages.guarded(stages.decode_and_sample),
                name="decode",
                executor=decoders,
                concurrency=self.decode_threads + 1,
                output_order="input",
            )
            .pipe(stages.guarded(stages.infer), name="infer")
            .add_sink(_QUEUED_RESULTS)
            .build(
                num_threads=_FETCH_THREADS + 2,
                max_failures=0,  # a stage that raises ends the run: nothing is ever dropped
                use_thread_output_queue=True,
            )
        )
        try:
            with threads.auto_stop():
                try:
                    yield from threads
                finally:
                    stages.stopping.set()  # a slow network need not finish its micro-batch first
        except PipelineFailure as failure:
            # The library wraps what a stage raised; callers want the error itself.
            raise (stages.errors or failure.exceptions)[0] from None
        finally:
            decoders.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Stages:
    """What the threads call, one micro-batch at a time."""

    pipeline: Pipeline
    sampler: Sampler
    errors: list[BaseException] = field(default_factory=list)
    stopping: Event = field(default_factory=Event)

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

    def source(self, batches: Iterable[MicroBatch]) -> Iterator[MicroBatch]:
        """`batches`, with what they raise kept in `errors`."""
        try:
            yield from batches
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
        if not batch.queries:
            return batch
        p, buffer = self.pipeline, self.sampler.begin()
        decoding = sampling = 0.0
        for query in batch.queries:
            if query.data is None and query.pixels is None:
                with p.stats.fetch.measure(0):
                    fetch(query)
            start = perf_counter()
            decode(query, p.decoding)
            decoded = perf_counter()
            self.sampler.sample(query, batch, buffer)
            decoding += decoded - start
            sampling += perf_counter() - decoded
        p.stats.decode.add(len(batch.queries), decoding)
        p.stats.sample.add(len(batch.sampled), sampling)
        self.sampler.finish(batch, buffer)
        return batch

    def infer(self, batch: MicroBatch) -> MicroBatch:
        p, D = self.pipeline, self.pipeline.sampling.patches
        if batch.patches is None:
            return batch
        for start in range(0, len(batch.sampled), p.batch_size):
            if self.stopping.is_set():
                break
            queries = batch.sampled[start : start + p.batch_size]
            patches = batch.patches[start * D : (start + len(queries)) * D]
            with p.stats.infer.measure(len(queries)):
                infer(p.backend, queries, patches, features=p.features, exemplar_scores=p.exemplar_scores)
        self.sampler.release(batch)
        return batch
