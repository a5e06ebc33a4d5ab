"""The pipeline: queries go in, and come out in the same order with a score or a status; stages run in threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from threading import Event
from time import monotonic
from typing import Any

from spdl.pipeline import Pipeline as Threads
from spdl.pipeline import PipelineBuilder

from .backends.base import Backend
from .records import MicroBatch, Query, RunStats, take_group
from .stages.base import Stage, StageSettings
from .stages.fetch import Fetcher

FETCH_THREADS = 4
_QUEUED_RESULTS = 2
_DRAIN_SECONDS = 2.0


@dataclass(slots=True)
class Pipeline:
    """Runs fetch and then the backend's stages (decode → sample → infer), all at once, in threads.

    Args:
        backend: what scores the images.
        settings: of every run of this pipeline.
    """

    backend: Backend
    settings: StageSettings

    @property
    def stats(self) -> RunStats:
        """Return the counters of every stage."""
        return self.settings.stats

    @property
    def fetcher(self) -> Fetcher:
        """Return what reads the images."""
        return self.settings.fetcher

    def run(self, queries: Iterable[Query]) -> Iterator[Query]:
        """Score queries; each comes out once, in order.

        Raises:
            Exception: whatever a stage or `queries` raised; the threads have stopped by then.
        """
        with closing(self.run_batches(self.micro_batches(queries))) as batches:
            for batch in batches:
                yield from batch.queries

    def micro_batches(self, queries: Iterable[Query], tag: object = None) -> Iterator[MicroBatch]:
        """Group queries by `settings.rows`; fewer at the end, or where large images are in memory."""
        queries = iter(queries)
        while True:
            with self.stats.source.measure(0):
                group = take_group(queries, self.settings.rows)
            if not group:
                return
            self.stats.source.items += len(group)
            yield MicroBatch(group, tag=tag)

    def run_batches(self, batches: Iterable[MicroBatch]) -> Generator[MicroBatch]:
        """Score micro-batches; each comes out once, in order, whether it holds queries or not.

        Raises:
            Exception: whatever a stage or `batches` raised; the threads have stopped by then.
        """
        run = _Run(self.stats, self.fetcher)
        self.fetcher.stopping = run.stopping
        settings = replace(self.settings, stopping=run.stopping)
        with closing(self.fetcher), closing(self.backend.stages(settings)) as chain:
            fetching = Stage("fetch", run.fetch, FETCH_THREADS)
            pools: list[ThreadPoolExecutor] = []
            builder: PipelineBuilder[MicroBatch, MicroBatch] = PipelineBuilder()
            builder = builder.add_source(run.source(batches))
            for stage in (fetching, *chain.stages):
                pools.append(ThreadPoolExecutor(stage.threads, stage.name))
                builder = builder.pipe(run.guarded(stage.run), executor=pools[-1], **_concurrency(stage))
            threads = builder.add_sink(_QUEUED_RESULTS).build(
                num_threads=1,
                max_failures=0,  # a stage that raises ends the run: nothing is ever dropped
                use_thread_output_queue=True,
            )
            try:
                with threads.auto_stop():
                    try:
                        for batch in threads:
                            if run.errors:
                                break
                            yield batch
                    finally:
                        run.stopping.set()
                        _drain(threads)
            finally:
                for pool in pools:
                    pool.shutdown(wait=True, cancel_futures=True)
        if run.errors:
            raise run.errors[0]


def _concurrency(stage: Stage) -> dict[str, Any]:
    if stage.threads == 1:
        return {"name": stage.name, "concurrency": 1}
    # Stages in order have `concurrency` + 2 tasks under way; threads of their own limit how many run at once. One
    # task more than threads: the next micro-batch is there when one is done.
    return {"name": stage.name, "concurrency": max(1, stage.threads - 1), "output_order": "input"}


def _drain(threads: Threads[MicroBatch]) -> None:
    """Take what is still under way, so that no thread waits for room. A source that blocks gets only so long."""
    deadline = monotonic() + _DRAIN_SECONDS
    with suppress(EOFError, TimeoutError):
        while True:
            threads.get_item(timeout=max(0.01, deadline - monotonic()))


@dataclass(frozen=True, slots=True)
class _Run:
    """What the threads of one run share."""

    stats: RunStats
    fetcher: Fetcher
    errors: list[BaseException] = field(default_factory=list)
    stopping: Event = field(default_factory=Event)

    def guarded(self, stage: Callable[[MicroBatch], MicroBatch]) -> Callable[[MicroBatch], MicroBatch]:
        """Wrap a stage so that it never raises: an error is kept in `errors`, and stops the source and all other work.

        So a run with an error ends as any other does, with the last micro-batch: the threads' library doesn't always
        manage to end when a stage raises.
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
        """Yield `batches` until one of the stages has failed."""
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
        with self.stats.fetch.measure(len(batch.queries)):
            self.fetcher.fetch_all(batch.queries)
        return batch
