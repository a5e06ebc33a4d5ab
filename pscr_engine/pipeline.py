"""Wires the stages: queries in, the same queries out, in the same order, with a score or a status."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from time import monotonic, perf_counter

from spdl.pipeline import Pipeline as Threads
from spdl.pipeline import PipelineBuilder

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
# A micro-batch holds this many bytes of images, and one image more: the rest is read when it is decoded.
_HELD_BYTES = 64 * 2**20
_FETCH_THREADS = 4
_QUEUED_RESULTS = 2
_DRAIN_SECONDS = 2.0


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
        """`queries` in groups of `rows_per_micro_batch`; fewer at the end, or of large images that are in memory."""
        queries = iter(queries)
        while True:
            group: list[Query] = []
            with self.stats.source.measure(0):
                held = 0
                for query in islice(queries, self.rows_per_micro_batch):
                    group.append(query)
                    held += query.bytes_held
                    if held >= _HELD_BYTES:
                        break
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
        # Stages in order have `concurrency` + 2 tasks under way; threads of their own limit how many run at once. One
        # decoding task more than threads: the next micro-batch is there when one is done.
        fetchers = ThreadPoolExecutor(_FETCH_THREADS, "fetch")
        decoders = ThreadPoolExecutor(self.decode_threads, "decode")
        threads = (
            builder.add_source(stages.source(batches))
            .pipe(
                stages.guarded(stages.fetch),
                name="fetch",
                executor=fetchers,
                concurrency=_FETCH_THREADS - 2,
                output_order="input",
            )
            .pipe(
                stages.guarded(stages.decode_and_sample),
                name="decode",
                executor=decoders,
                concurrency=max(1, self.decode_threads - 1),
                output_order="input",
            )
            .pipe(stages.guarded(stages.infer), name="infer")
            .add_sink(_QUEUED_RESULTS)
            .build(
                num_threads=2,
                max_failures=0,  # a stage that raises ends the run: nothing is ever dropped
                use_thread_output_queue=True,
            )
        )
        try:
            with threads.auto_stop():
                try:
                    for batch in threads:
                        if stages.errors:
                            break
                        yield batch
                finally:
                    stages.stopping.set()
                    _drain(threads)
        finally:
            for pool in (fetchers, decoders):
                pool.shutdown(wait=True, cancel_futures=True)
        if stages.errors:
            raise stages.errors[0]


def _drain(threads: Threads[MicroBatch]) -> None:
    """Take what is still under way, so that no thread waits for room. A source that blocks gets only so long."""
    deadline = monotonic() + _DRAIN_SECONDS
    with suppress(EOFError, TimeoutError):
        while True:
            threads.get_item(timeout=max(0.01, deadline - monotonic()))


@dataclass(frozen=True, slots=True)
class _Stages:
    """What the threads call, one micro-batch at a time."""

    pipeline: Pipeline
    sampler: Sampler
    errors: list[BaseException] = field(default_factory=list)
    stopping: Event = field(default_factory=Event)

    def guarded(self, stage: Callable[[MicroBatch], MicroBatch]) -> Callable[[MicroBatch], MicroBatch]:
        """`stage`, which never raises: an error is kept in `errors`, and stops the source and all other work.

        So that a run with an error ends as any other does, with the last micro-batch. (What a stage
        raises reaches the threads' library as a failure to handle, and it doesn't always get that done.)
        """

        def call(batch: MicroBatch) -> MicroBatch:
            try:
                return batch if self.stopping.is_set() else stage(batch)
            except BaseException as error:  # noqa: BLE001 - raised again by `run_batches`
                self.fail(error)
                return batch

        return call

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.stopping.set()

    def source(self, batches: Iterable[MicroBatch]) -> Iterator[MicroBatch]:
        """`batches`, until one of the stages has failed."""
        try:
            for batch in batches:
                if self.stopping.is_set():
                    return
                yield batch
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again by `run_batches`
            self.fail(error)
            yield MicroBatch([])  # to wake the consumer

    def fetch(self, batch: MicroBatch) -> MicroBatch:
        with self.pipeline.stats.fetch.measure(len(batch.queries)):
            held = 0
            for query in batch.queries:
                if held < _HELD_BYTES:
                    fetch(query)
                    held += query.bytes_held
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
