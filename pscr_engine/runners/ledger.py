"""The ledger of a run: which chunks of the manifest are to be scored, which are at a worker, which are done."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError
from ..output.shard import WHOLE, Shard

_CHUNKS_AT_WORKER = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of the manifest, the unit of work and of commit.

    Args:
        index: number of the chunk and of its part.
        rows: the manifest's rows; at the end of the manifest, there may be fewer.
        again: which of the part's rows to score again, bool [rows]; None for a chunk without a part.
        suspect: whether a worker has died on it; such a chunk is at a worker alone.
    """

    index: int
    rows: range
    again: NDArray[np.bool_] | None = None
    suspect: bool = False

    @property
    def name(self) -> str:
        """Name the chunk in messages."""
        return f"rows {self.rows.start} to {self.rows.stop - 1} (chunk {self.index})"


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """What a worker says of a chunk whose part is durable.

    Args:
        index: of the chunk.
        rows: rows that the manifest has in it.
        status: status → number of the rows scored now; of `again` rows only, where there was a part.
    """

    index: int
    rows: int
    status: Counter[str]


@dataclass(slots=True)
class Ledger:
    """Hands out chunks in ascending order, each to one worker at a time. Several threads may use it at once.

    Args:
        chunk_rows: manifest rows per chunk.
        parts: chunks that have a part.
        again: chunk → which rows of its part are to be scored again.
        end: number of manifest rows, or a number that it doesn't exceed; None if it isn't known.
        strikes: how many workers may die on one chunk before the run is given up.
        shard: whose chunks are handed out.
        given_back: how often a chunk has come back without being done.
    """

    chunk_rows: int
    parts: Collection[int] = ()
    again: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    end: int | None = None
    strikes: int = 2
    shard: Shard = WHOLE
    rows: int = 0
    _next: int = field(init=False)
    _returned: list[Chunk] = field(default_factory=list)
    _out: dict[int, Chunk] = field(default_factory=dict)
    _lost_on: dict[int, set[str]] = field(default_factory=dict)
    _struck: Counter[int] = field(default_factory=Counter)
    given_back: int = 0
    _lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._next = self.shard.index

    def take(self, *, idle: bool = True) -> Chunk | None:
        """Take the next chunk to work on; None if there is none now (a worker that dies may bring some back).

        Args:
            idle: whether who asks has no other chunk; only then it gets one that a worker has died on.
        """
        with self._lock:
            if self._returned and self._returned[0].suspect and not idle:
                return None
            chunk = self._returned.pop(0) if self._returned else self._fresh()
            if chunk is not None:
                self._out[chunk.index] = chunk
            return chunk

    def feed(self, at_worker: dict[int, Chunk]) -> Iterator[Chunk]:
        """Fill a worker up to two chunks: yield the new ones, and add them to those `at_worker`.

        A second chunk waits at the worker, so that its pipeline stays full from one to the next; but one that a worker
        has died on is there alone, so that it is known what the next one dies of.
        """
        while len(at_worker) < _CHUNKS_AT_WORKER and not any(chunk.suspect for chunk in at_worker.values()):
            chunk = self.take(idle=not at_worker)
            if chunk is None:
                return
            at_worker[chunk.index] = chunk
            yield chunk

    def chunks(self) -> Iterator[Chunk]:
        """Take chunk after chunk."""
        while (chunk := self.take()) is not None:
            yield chunk

    def done(self, done: ChunkDone) -> None:
        """Note that a worker has finished a chunk."""
        with self._lock:
            chunk = self._out.pop(done.index)
            if chunk.again is None:
                if done.rows < len(chunk.rows):
                    self._ends_at(chunk.rows.start + done.rows)
                if done.rows:
                    self.rows = max(self.rows, chunk.rows.start + done.rows)

    def device_lost(self, chunks: Collection[int], device: str) -> None:
        """Put the chunks of a worker whose device has dropped out back at the front, to be scored one at a time.

        One at a time, since an image may have been the cause.

        Raises:
            WorkerError: devices that are not the same dropped out on one of them.
        """
        with self._lock:
            self.given_back += len(chunks)
            for index in sorted(chunks, reverse=True):
                chunk = self._out.pop(index)
                lost = self._lost_on.setdefault(index, set())
                lost.add(device)
                if len(lost) > 1 and len(chunks) == 1:
                    raise WorkerError(
                        f"{chunk.name} have taken down {' and '.join(sorted(lost))}: find the image among them, "
                        "take it out of the way, and give the same command again to go on"
                    )
                self._returned.insert(0, replace(chunk, suspect=True))

    def give_back(self, chunks: Collection[int]) -> None:
        """Put the chunks of a worker that is gone, through no fault of theirs, back at the front of the queue."""
        with self._lock:
            self.given_back += len(chunks)
            for index in sorted(chunks, reverse=True):
                self._returned.insert(0, self._out.pop(index))

    def worker_died(self, chunks: Collection[int]) -> None:
        """Put the chunks of a worker that has died back at the front, to be scored one at a time.

        Raises:
            WorkerError: one of them has killed `strikes` workers.
        """
        with self._lock:
            self.given_back += len(chunks)
            for index in sorted(chunks, reverse=True):
                chunk = self._out.pop(index)
                self._struck[index] += 1
                # With several chunks in its hands it is not known on which the worker died.
                if self._struck[index] >= self.strikes and len(chunks) == 1:
                    raise WorkerError(
                        f"{chunk.name} have killed a worker "
                        f"{self._struck[index]} times; look for out-of-memory kills or an image that crashes its "
                        "decoder, mend that, and give the same command again to go on"
                    )
                self._returned.insert(0, replace(chunk, suspect=True))

    def open_chunks(self) -> dict[str, int]:
        """Count the chunks that are "at_workers", and those that were "returned" and wait for another one."""
        with self._lock:
            return {"at_workers": len(self._out), "returned": len(self._returned)}

    @property
    def finished(self) -> bool:
        """Tell whether no chunk is left and no worker has one."""
        with self._lock:
            return not self._out and not self._returned and not self._has_fresh()

    def count_parts(self, rows: int) -> None:
        """Learn from the last part, of `rows` rows, where the manifest ends, if it is shorter than a chunk."""
        with self._lock:
            last = max(self.parts)
            self.rows = max(self.rows, last * self.chunk_rows + rows)
            if rows < self.chunk_rows:
                self._ends_at(self.rows)

    def _ends_at(self, row: int) -> None:
        self.end = row if self.end is None else min(self.end, row)

    def _has_fresh(self) -> bool:
        """Move on to the next chunk that was never handed out; tell whether there is one."""
        while self.end is None or self._next * self.chunk_rows < self.end:
            if self._next not in self.parts or self._next in self.again:
                return True
            self._next += self.shard.count
        return False

    def _fresh(self) -> Chunk | None:
        if not self._has_fresh():
            return None
        index = self._next
        self._next += self.shard.count
        start = index * self.chunk_rows
        return Chunk(index, range(start, start + self.chunk_rows), self.again.get(index))
