"""A backend's stages, open for as long as requests come: each in threads of its own, micro-batches go through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from threading import Event, Thread

from ..backends.base import Backend
from ..records import MicroBatch
from ..stages.base import Stage, StageSettings
from .request import settings_key

_FETCH_THREADS = 2

Done = Callable[[MicroBatch, BaseException | None], None]


class InterruptedBatchError(Exception):
    """A micro-batch was under way when another one failed, or when all was to end; it may be tried again."""


class StageThreads:
    """Runs micro-batches through fetch and a backend's stages.

    Unlike a run's pipeline it never waits for more, keeps no order, and says of each micro-batch what became of it.
    After the first error nothing is scored any more: stages need not be whole after it, the GPU's buffers among them.

    Args:
        backend: what scores; nothing else may have its stages open.
        settings: of all micro-batches.
        done: called in one of the threads with each micro-batch, and the error if it has failed.

    Raises:
        PscrError: as `Backend.stages`.
    """

    def __init__(self, backend: Backend, settings: StageSettings, done: Done) -> None:
        self._stopping, self._fetcher, self._done = Event(), settings.fetcher, done
        self.settings = replace(settings, stopping=self._stopping)
        self._fetcher.stopping = self._stopping
        self._chain = backend.stages(self.settings)
        stages = (Stage("fetch", self._fetch, _FETCH_THREADS), *self._chain.stages)
        self.capacity = sum(stage.threads for stage in stages)
        self._inboxes: list[SimpleQueue[MicroBatch | None]] = [SimpleQueue() for _ in stages]
        self._threads = [
            # Daemons: whoever forgets to close a scorer must not wait for them at the end of the program.
            Thread(target=self._work, args=(stage, number), name=f"pscr-{stage.name}", daemon=True)
            for number, stage in enumerate(stages)
            for _ in range(stage.threads)
        ]
        self._stages = stages
        started: list[Thread] = []
        try:
            for thread in self._threads:
                thread.start()
                started.append(thread)
        except BaseException:  # this host lets a process have no more threads
            self._threads = started
            self.close()
            raise

    def serves(self, key: object) -> bool:
        """Tell whether requests with that key can be scored here, and nothing has failed so far."""
        return not self.spoilt and settings_key(self.settings) == key

    @property
    def spoilt(self) -> bool:
        """Tell whether something has failed, so that nothing is scored any more."""
        return self._stopping.is_set()

    def submit(self, batch: MicroBatch) -> None:
        """Begin to score a micro-batch."""
        self._inboxes[0].put(batch)

    def stop(self) -> None:
        """Let no stage begin any more; what is under way ends as interrupted."""
        self._stopping.set()

    def close(self) -> None:
        """End the threads and give the buffers back. No micro-batch is under way any more."""
        for stage, inbox in zip(self._stages, self._inboxes, strict=True):
            for _ in range(stage.threads):
                inbox.put(None)
        for thread in self._threads:
            thread.join()
        try:
            self._fetcher.close()
        finally:
            self._chain.close()

    def _work(self, stage: Stage, number: int) -> None:
        inbox = self._inboxes[number]
        onwards = self._inboxes[number + 1] if number + 1 < len(self._inboxes) else None
        while (batch := inbox.get()) is not None:
            error: BaseException | None = None
            if not self._stopping.is_set():
                try:
                    stage.run(batch)
                except BaseException as raised:  # noqa: BLE001 - it is the answer to those who wait for this batch
                    error = raised
                    self.stop()
            if error is None and self._stopping.is_set():
                error = InterruptedBatchError()
            if error is None and onwards is not None:
                onwards.put(batch)
                batch = None
                continue
            self._done(batch, error)
            # A thread that waits for more must not keep the last one's images, or its callers.
            del batch, error

    def _fetch(self, batch: MicroBatch) -> MicroBatch:
        with self.settings.stats.fetch.measure(len(batch.queries)):
            self._fetcher.fetch_all(batch.queries)
        return batch
