"""The pool of worker processes on this host, one per device: it starts them, hands out chunks and hears of deaths."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from ..backends.devices import is_gpu
from ..errors import BackendError, DeviceLostError, WorkerError
from .ledger import Chunk, Ledger
from .progress import RunProgress
from .worker import WorkerSetup

log = logging.getLogger("pscr_engine")

_STARTS = 3
# A GPU that was lost may come back, once.
_LOSSES = 2


class WorkerTraceback(Exception):  # noqa: N818 - it is shown as the cause of the error itself
    """Where in a worker process an error was raised."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class WorkerProcess:
    """A worker in a process of its own, started with a fresh interpreter (CUDA does not survive a fork).

    Args:
        setup: what the worker is to do.
        lock: descriptors of the output folder's lock, which the process shares: should this process be
            killed, no other run gets in before its workers are gone, too.
    """

    def __init__(self, setup: WorkerSetup, lock: Sequence[int]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                # -P: modules come from where this process's do, not from the folder it happens to be in.
                [sys.executable, "-P", "-m", "pscr_engine.runners.worker_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # results are the parent's
                pass_fds=(theirs.fileno(), *lock),
                process_group=0,  # Ctrl-C on a terminal is for this process to decide on
            )
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.setup = setup
        self.chunks: dict[int, Chunk] = {}
        self.ready = False
        self.send(setup)

    def send(self, message: object) -> None:
        """Send a message; if the process is gone, reading from it will show that."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def kill(self) -> None:
        """End the process at once; parts are whole or not there."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def cause_of_death(self) -> str:
        """Say how the process ended, once it has; it has closed its connection already."""
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code >= 0:
            return f"exit code {code}"
        names = {member.value: member.name for member in signal.Signals}
        return f"signal {names.get(-code, -code)}"


class Pool:
    """Hands chunks to worker processes until the ledger is finished.

    Args:
        setups: one per worker.
        ledger: the chunks.
        progress: adds up what the workers report.
        lock: descriptors of the output folder's lock.
    """

    def __init__(
        self, setups: Sequence[WorkerSetup], ledger: Ledger, progress: RunProgress, lock: Sequence[int]
    ) -> None:
        self._setups, self._ledger, self._progress, self._lock = setups, ledger, progress, lock
        self._workers: dict[int, WorkerProcess] = {}
        self._starts = dict.fromkeys(range(len(setups)), 0)
        self._begun = False
        self._died: set[int] = set()  # a library may abort the process when its GPU is lost
        self._losses = dict.fromkeys(range(len(setups)), 0)

    def run(self) -> None:
        """Have every chunk of the ledger scored.

        Raises:
            WorkerError: a chunk has killed several workers, or workers die as soon as they start.
            Exception: whatever a worker raised, with the worker's traceback as its cause.
        """
        try:
            for slot in range(len(self._setups)):
                self._workers[slot] = self._start(slot)
            while not self._ledger.finished:
                for worker in self._workers.values():
                    self._feed(worker)
                heard = wait([worker.connection for worker in self._workers.values()])
                for slot in [slot for slot, worker in self._workers.items() if worker.connection in heard]:
                    self._hear(slot)
        finally:
            for worker in self._workers.values():
                worker.kill()

    def _start(self, slot: int) -> WorkerProcess:
        self._starts[slot] += 1
        return WorkerProcess(self._setups[slot], self._lock)

    def _feed(self, worker: WorkerProcess) -> None:
        for chunk in self._ledger.feed(worker.chunks) if worker.ready else ():
            worker.send(chunk)

    def _hear(self, slot: int) -> None:
        worker = self._workers[slot]
        try:
            kind, *content = worker.connection.recv()
        except (EOFError, OSError):  # at the end of a message, or in the middle
            self._replace_dead(slot)
            return
        match kind:
            case "ready":
                worker.ready, self._starts[slot] = True, 0
                self._progress.ready(worker, worker.setup.device)
                if not self._begun:
                    self._begun = True
                    self._progress.begin(*content)
            case "moved":
                self._progress.moved(worker, *content)
            case "log":
                log.log(*content)
            case "done":
                done, stages = content
                del worker.chunks[done.index]
                self._ledger.done(done)
                self._progress.committed(worker, done.status, stages)
            case "error":
                error, text = content
                if not self._is_loss(slot, error):
                    raise error from WorkerTraceback(text)
                self._restart_lost_gpu(slot, error)

    def _is_loss(self, slot: int, error: BaseException) -> bool:
        """Tell whether an error means that the GPU is lost, and not that the run must end.

        A GPU that was lost can't be opened again, either.
        """
        worker = self._workers[slot]
        cannot_reopen = (
            is_gpu(worker.setup.device)
            and (self._losses[slot] > 0 or slot in self._died)
            and not worker.ready
            and isinstance(error, BackendError)
        )
        return isinstance(error, DeviceLostError) or cannot_reopen

    def _restart_lost_gpu(self, slot: int, error: BaseException) -> None:
        """Give the chunks of a lost GPU to the others, and start a worker on it once more."""
        worker = self._workers.pop(slot)
        worker.kill()
        self._progress.gone(worker)
        self._ledger.device_lost(list(worker.chunks), worker.setup.device)
        self._losses[slot] += 1
        again = self._losses[slot] < _LOSSES
        if not again and not self._workers:
            raise error
        log.warning("%s; its chunks are given out again%s", error, "" if again else ", and the run goes on without it")
        if again:
            self._workers[slot] = self._start(slot)

    def _replace_dead(self, slot: int) -> None:
        """Give the chunks of a dead worker process to others, and start another process in its place."""
        worker = self._workers[slot]
        self._died.add(slot)
        cause = worker.cause_of_death()
        worker.connection.close()
        self._progress.gone(worker)
        device = worker.setup.device
        log.warning("worker %d (%s) has died (%s): its chunks are given out again", slot, device, cause)
        if worker.chunks:
            self._ledger.worker_died(list(worker.chunks))
        if self._starts[slot] >= _STARTS:
            raise WorkerError(f"the worker for {device} died {_STARTS} times while starting ({cause})")
        self._workers[slot] = self._start(slot)
