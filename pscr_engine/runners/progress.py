"""How far a run is: what workers report, added up, for the command line to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock
from time import monotonic
from typing import Any

from ..metrics import Figures
from ..records import TRAFFIC, StageCounts, Status, add_counts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment of a run.

    Args:
        rows: rows that are done, by this run or an earlier one.
        total: rows of the manifest; None while that is not known. For CSV and JSONL, at most so many.
        scored: rows that this run has done; `rows` minus those of earlier runs.
        status: status → how many of `scored`.
        seconds: since this run began to score.
        stages: stage → items and seconds, added up over threads and workers.
        final: whether this is the last one of the run.
    """

    rows: int
    total: int | None
    scored: int
    status: Counter[str]
    seconds: float
    stages: StageCounts
    final: bool = False

    @property
    def images_per_second(self) -> float:
        """Return this run's images per second so far."""
        return self.scored / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimate the seconds that are left at this rate; None if nothing is known yet."""
        if self.total is None or not self.scored:
            return None
        return max(0, self.total - self.rows) / self.images_per_second

    @property
    def failures(self) -> dict[str, int]:
        """Return status → count, without ok."""
        return {name: count for name, count in sorted(self.status.items()) if name != Status.OK and count}

    @property
    def stage_shares(self) -> dict[str, float]:
        """Return stage → its share of the time that all stages took together, 0 to 1."""
        times = {name: seconds for name, (_, seconds) in self.stages.items() if name not in TRAFFIC}
        total = sum(times.values())
        return {name: seconds / total if total else 0.0 for name, seconds in times.items()}


Report = Callable[[Snapshot], None]
"""Called now and then while a run goes on, and at its end."""


# A snapshot adds up over all workers: with hundreds, one per message would take more time than the messages.
_REPORT_SECONDS = 0.05


@dataclass(slots=True)
class RunProgress:
    """Adds up what workers report. Other threads may ask how far it is.

    Args:
        total: see `Snapshot`.
        before: rows that need no work.
        report: called with a snapshot, some twenty times per second at most.
        on_begin: called when the first worker is ready, before anything is scored.
        since: the monotonic time when the start began; then when scoring began.
        backend: name of the first ready worker's backend; "" until then.
        status: status → number of rows in chunks that are committed.
        chunks: how many chunks are committed.
    """

    total: int | None
    before: int
    report: Report
    on_begin: Callable[[], None] = lambda: None
    status: Counter[str] = field(default_factory=Counter)
    startup_seconds: float = 0.0
    since: float = field(default_factory=monotonic)
    backend: str = ""
    chunks: int = 0
    _reported: float = float("-inf")
    _ended: float | None = None
    _under_way: dict[object, Counter[str]] = field(default_factory=dict)
    _stages: dict[object, StageCounts] = field(default_factory=dict)
    _ready: dict[object, str] = field(default_factory=dict)
    _lost: int = 0
    _lock: Any = field(default_factory=RLock, repr=False)

    def begin(self, backend: str) -> None:
        """Start the throughput clock: the first worker is ready, with a backend of this name."""
        with self._lock:
            self.backend = backend
            self.startup_seconds, self.since = monotonic() - self.since, monotonic()
        self.on_begin()

    def ready(self, worker: object, device: str) -> None:
        """Note that a worker is ready, and on what kind of device."""
        with self._lock:
            self._ready[worker] = device

    def moved(self, worker: object, under_way: Counter[str], stages: StageCounts) -> None:
        """Note a worker's rows in chunks that are not committed yet, by status, and its time per stage so far."""
        with self._lock:
            self._under_way[worker] = under_way
            self._stages[worker] = stages
        if monotonic() - self._reported >= _REPORT_SECONDS:
            self._reported = monotonic()
            self.report(self.snapshot())

    def committed(self, worker: object, status: Counter[str], stages: StageCounts) -> None:
        """Note that a worker has committed a chunk: its rows by status, and the worker's time per stage so far."""
        with self._lock:
            self.status.update(status)
            self.chunks += bool(status)  # behind the manifest's end, a chunk may have no rows, and no part
            self._under_way.pop(worker, None)
        self.moved(worker, Counter(), stages)

    def gone(self, worker: object) -> None:
        """Drop what a worker that is gone had not committed."""
        with self._lock:
            self._under_way.pop(worker, None)
            self._lost += self._ready.pop(worker, None) is not None

    def snapshot(self, *, final: bool = False) -> Snapshot:
        """Return how far the run is now. After the final one, no time passes any more."""
        with self._lock:
            now = monotonic() if self._ended is None else self._ended
            if final:
                self._ended = now
            status = sum(self._under_way.values(), Counter(self.status))
            scored = status.total()
            return Snapshot(
                self.before + scored,
                self.total,
                scored,
                status,
                now - self.since,
                add_counts(self._stages.values()),
                final,
            )

    def figures(self) -> Figures:
        """Return what metrics say, all but the chunks under way."""
        with self._lock:
            snapshot, committed, begun = self.snapshot(), Counter(self.status), bool(self.backend)
            here = add_counts(self._stages[worker] for worker in self._ready if worker in self._stages)
            return Figures(
                self.backend,
                snapshot.total,
                self.before + committed.total(),
                committed,
                snapshot.scored - committed.total(),
                snapshot.seconds if begun else 0.0,
                self.startup_seconds,
                snapshot.images_per_second if begun else 0.0,
                snapshot.stages,
                _waiting(here),
                chunks_done=self.chunks,
                workers=Counter(self._ready.values()),
                workers_lost=self._lost,
            )


def _waiting(stages: StageCounts) -> dict[str, int]:
    """Return stage → images that the stages before it have let go and it has not. Failed ones are never sampled."""
    done = {name: items for name, (items, _) in stages.items()}
    before = {"fetch": "source", "decode": "fetch", "infer": "sample"}
    return {name: max(0, done.get(earlier, 0) - done.get(name, 0)) for name, earlier in before.items()}
