"""The pool of workers in a Ray cluster: it hands out chunks and copes with nodes that come, die or fall silent."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, Protocol

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from ...errors import DeviceLostError, WorkerError, one_line
from ...records import StageCounts
from ..ledger import Chunk, Ledger
from ..local_pool import WorkerTraceback
from ..progress import RunProgress
from .actor import Answer

log = logging.getLogger("pscr_engine")

_STARTS = 3
_END_SECONDS = 10.0
# A GPU that was lost may come back, once.
_LOSSES = 2
_WAIT_SECONDS, _PROGRESS_SECONDS, _LOOK_SECONDS, _REMIND_SECONDS = 0.5, 1.0, 2.0, 60.0
# The cluster takes up to a minute to tell a node that has gone from a process that has died.
_UNREACHABLE_SECONDS = 120.0
# What could not start, on a bad node or card perhaps, is not tried again at once.
_REST_SECONDS = 60.0
# After so long a pause of this process (Ctrl-Z), actors may have ended themselves.
_PAUSE_SECONDS = 60.0


class Handle(Protocol):
    """A worker somewhere in the cluster. Its first three methods return a reference to an `Answer`, at once."""

    def open(self) -> Any:
        """Load the bundle."""
        ...

    def score(self, chunk: Chunk) -> Any:
        """Score a chunk."""
        ...

    def progress(self) -> Any:
        """Say how far it is."""
        ...

    def kill(self) -> None:
        """End it; parts are whole or not there."""
        ...

    def node_is_gone(self, node_id: str, error: RayError) -> bool:
        """Tell whether it died of `error` with its node; `node_id` is "" if it never was ready."""
        ...


class Fleet(Protocol):
    """Where workers come from."""

    def wanted(self) -> int:
        """Return how many workers there should be now."""
        ...

    def start(self) -> Handle:
        """Start a worker, now or when there is room."""
        ...

    @property
    def needs(self) -> str:
        """Say what a worker needs, for messages."""
        ...


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker, and the calls to it that are not answered yet.

    Args:
        handle: calls it.
        number: its number, for messages.
        node: name of the host it is on, once it is ready.
        node_id: what Ray calls that node.
        gpus: Ray's numbers of the node's GPUs that it has.
        chunks: the chunks that it has.
        asked: reference to the progress that it has been asked for.
        asked_at: when that was.
        unreachable_since: since when it can't be reached, though nobody says that it has died.
        latest: number of its latest answer.
        stages: what that said.
    """

    handle: Handle
    number: int
    ready: bool = False
    node: str = ""
    node_id: str = ""
    gpus: str = ""
    chunks: dict[int, Chunk] = field(default_factory=dict)
    asked: Any = None
    asked_at: float = 0.0
    unreachable_since: float | None = None
    latest: int = 0
    stages: StageCounts = field(default_factory=dict)

    @property
    def location(self) -> str:
        """Name its host and GPU, for messages and to tell one GPU from another."""
        return f"GPU {self.gpus} of {self.node}" if self.gpus else self.node


class RayPool:
    """Has every chunk of a ledger scored by a fleet of workers that may grow, shrink and die.

    Args:
        fleet: where workers come from.
        ledger: the chunks.
        progress: adds up what the workers report.

    Attributes:
        most: how many workers were at work at once, at most.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, progress: RunProgress) -> None:
        self._fleet, self._ledger, self._progress = fleet, ledger, progress
        self._workers: list[_Worker] = []
        self._pending: dict[Any, _Worker] = {}  # a reference to an answer → whose it will be
        self._started = self._failed_starts = 0
        self._losses: dict[str, int] = {}
        self._rest_until: list[float] = []
        self._looked = self._heard = self._woke = float("-inf")
        self._turned = monotonic()
        self._begun = False
        self.most = 0

    def run(self) -> None:
        """Have every chunk scored.

        Raises:
            WorkerError: a chunk has killed several workers, or workers die as soon as they start.
            Exception: whatever a worker raised, with the worker's traceback as its cause.
        """
        self._heard = monotonic()
        try:
            while not self._ledger.finished:
                self._notice_pauses()
                self._follow_the_cluster()
                for worker in self._workers:
                    self._feed(worker)
                    self._ask(worker)
                for reference in self._answered():
                    self._hear(reference)
                self._remind()
        finally:
            for worker in self._workers:
                worker.handle.kill()
            if self._pending:  # until they are dead: then the output folder is given up
                ray.wait(list(self._pending), num_returns=len(self._pending), timeout=_END_SECONDS)

    def _notice_pauses(self) -> None:
        now = monotonic()
        if now - self._turned > _PAUSE_SECONDS:
            self._woke = now
        self._turned = now

    def _follow_the_cluster(self) -> None:
        """Start workers that fit by now; take back those that wait for room that there is no more."""
        if monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = monotonic()
        self._rest_until = [until for until in self._rest_until if until > self._looked]
        wanted = max(1, self._fleet.wanted() - len(self._rest_until))
        ledger = self._ledger
        if ledger.end is not None:
            chunks = -(-ledger.end // ledger.chunk_rows) - len(ledger.parts) + len(ledger.again)
            wanted = min(wanted, max(1, chunks))
        for worker in list(self._workers):
            if worker.unreachable_since is not None and self._looked - worker.unreachable_since > _UNREACHABLE_SECONDS:
                self._drop_unreachable(worker)
        there = [worker for worker in self._workers if worker.unreachable_since is None]
        for _ in range(wanted - len(there)):
            self._start()
        waiting = [worker for worker in there if not worker.ready]
        for worker in waiting[::-1][: max(0, len(there) - wanted)]:  # the youngest: older ones may be loading already
            self._remove(worker)

    def _start(self) -> None:
        worker = _Worker(self._fleet.start(), self._started)
        self._started += 1
        self._workers.append(worker)
        self._pending[worker.handle.open()] = worker

    def _remove(self, worker: _Worker) -> None:
        worker.handle.kill()
        self._workers.remove(worker)
        self._forget_pending(worker)
        self._progress.gone(worker)

    def _forget_pending(self, worker: _Worker) -> None:
        self._pending = {reference: of for reference, of in self._pending.items() if of is not worker}
        worker.asked = None

    def _feed(self, worker: _Worker) -> None:
        for chunk in self._ledger.feed(worker.chunks) if worker.ready else ():
            self._pending[worker.handle.score(chunk)] = worker

    def _ask(self, worker: _Worker) -> None:
        reachable = worker.ready or worker.unreachable_since is not None
        if reachable and worker.asked is None and monotonic() - worker.asked_at >= _PROGRESS_SECONDS:
            worker.asked, worker.asked_at = worker.handle.progress(), monotonic()
            self._pending[worker.asked] = worker

    def _answered(self) -> list[Any]:
        """Wait a moment at most, and return the references whose answers are there."""
        references = list(self._pending)
        if not references:
            sleep(_WAIT_SECONDS)
            return []
        ready: list[Any]
        ready, rest = ray.wait(references, timeout=_WAIT_SECONDS)
        if ready and rest:  # all that came meanwhile, too
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        return ready

    def _hear(self, reference: Any) -> None:
        worker = self._pending.pop(reference, None)
        if worker is None:  # dropped meanwhile
            return
        try:
            answer: Answer = ray.get(reference)
        except ActorUnavailableError as error:
            self._mark_unreachable(worker, error)
            return
        except RayTaskError:
            raise  # a defect: actors answer, whatever happens
        except RayError as error:
            self._drop_dead(worker, error)
            return
        for level, text in answer.logged:
            log.log(level, "%s", text)
        if latest := answer.number > worker.latest:
            worker.latest, worker.stages = answer.number, answer.stages
        if answer.error is not None:
            self._failed(worker, answer)
        elif answer.done is not None:
            del worker.chunks[answer.done.index]
            self._ledger.done(answer.done)
            self._progress.committed(worker, answer.done.status, worker.stages)
        elif worker.unreachable_since is not None:
            self._drop_unreachable(worker)  # it is back, but what it said of its chunks meanwhile is lost
        elif reference == worker.asked:
            worker.asked = None
            if latest:
                self._progress.moved(worker, answer.under_way, answer.stages)
        else:
            self._opened(worker, answer)

    def _opened(self, worker: _Worker, answer: Answer) -> None:
        worker.ready, self._failed_starts = True, 0
        worker.node, worker.node_id, worker.gpus = answer.node, answer.node_id, answer.gpus
        self.most = max(self.most, sum(each.ready for each in self._workers))
        self._progress.ready(worker, "gpu" if worker.gpus else "cpu")  # which one is bounded by no number
        log.info("worker %d is ready on %s", worker.number, worker.location)
        if not self._begun:
            self._begun = True
            self._progress.begin(answer.backend)

    def _failed(self, worker: _Worker, answer: Answer) -> None:
        error = answer.error
        assert error is not None
        if not worker.ready:
            worker.node, worker.gpus = answer.node, answer.gpus
            self._could_not_start(worker, error, answer.traceback)
        elif isinstance(error, DeviceLostError):
            self._drop_lost_gpu(worker, error, answer.traceback)
        else:
            raise error from WorkerTraceback(answer.traceback)

    def _could_not_start(self, worker: _Worker, error: BaseException, text: str) -> None:
        """Drop a worker that could not start; a run that goes well elsewhere goes on."""
        self._remove(worker)
        self._failed_starts += 1
        if not self._others_go_on():
            raise error from WorkerTraceback(text)
        location = f" on {worker.location}" if worker.location else ""
        log.warning("worker %d can't start%s, and the run goes on without it: %s", worker.number, location, error)
        self._rest_until.append(monotonic() + _REST_SECONDS)

    def _others_go_on(self) -> bool:
        return any(worker.ready for worker in self._workers) or bool(self._workers and self._failed_starts < _STARTS)

    def _drop_lost_gpu(self, worker: _Worker, error: BaseException, text: str) -> None:
        """Give the chunks of a lost GPU to others, and let a worker start on it once more."""
        self._remove(worker)
        self._ledger.device_lost(list(worker.chunks), worker.location)
        self._losses[worker.location] = self._losses.get(worker.location, 0) + 1
        if self._losses[worker.location] >= _LOSSES:
            if not self._others_go_on():
                raise error from WorkerTraceback(text)
            self._rest_until.append(monotonic() + _REST_SECONDS)
        log.warning("worker %d (%s): %s; its chunks are given out again", worker.number, worker.location, error)
        self._looked = float("-inf")

    def _mark_unreachable(self, worker: _Worker, error: RayError) -> None:
        """Keep asking a worker that can't be reached until it is known why. Its calls have failed."""
        self._forget_pending(worker)
        if worker.unreachable_since is None:
            worker.ready, worker.unreachable_since = False, monotonic()
            self._looked = float("-inf")

    def _drop_unreachable(self, worker: _Worker) -> None:
        """Drop a worker that could not be reached for a while, which is not its chunks' fault."""
        log.warning("worker %d (%s) was out of reach: its chunks are given out again", worker.number, worker.location)
        self._remove(worker)
        self._ledger.give_back(list(worker.chunks))

    def _drop_dead(self, worker: _Worker, error: RayError) -> None:
        """Give the chunks of a dead worker to others; another takes its place, if there is room."""
        gone = worker.handle.node_is_gone(worker.node_id, error)
        chunks = list(worker.chunks)
        where = f" ({worker.location})" if worker.location else ""
        cause = one_line(error, 300)
        self._looked = float("-inf")  # replace it at once
        if not worker.node and not gone:
            self._could_not_start(worker, WorkerError(f"it died ({cause})"), "")
            return
        self._remove(worker)
        if gone:
            log.warning("worker %d%s is gone with its node: its chunks are given out again", worker.number, where)
            self._ledger.give_back(chunks)
        elif monotonic() - self._woke < _PAUSE_SECONDS:
            log.warning("worker %d%s has ended while this process stood still", worker.number, where)
            self._ledger.give_back(chunks)
        else:
            log.warning("worker %d%s has died: its chunks are given out again; %s", worker.number, where, cause)
            self._ledger.worker_died(chunks)

    def _remind(self) -> None:
        """Say now and then what is waited for, if nobody is at work."""
        if any(worker.ready for worker in self._workers):
            self._heard = monotonic()
        elif monotonic() - self._heard >= _REMIND_SECONDS:
            self._heard = monotonic()
            log.warning("no worker is ready yet: they are loading the bundle, or wait for %s", self._fleet.needs)
