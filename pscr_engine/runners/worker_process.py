"""The program of a worker process: `python -m pscr_engine.runners.worker_process DESCRIPTOR`."""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
import warnings
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

from ..host import freeze_gc, keep_freed_memory, keep_pandas_out
from .ledger import Chunk
from .worker import Worker

_PROGRESS_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class _Channel:
    """The connection to the parent process. Several threads may send."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self.chunks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()

    def send(self, *message: object) -> None:
        with self._lock:
            self._connection.send(message)

    def receive(self) -> None:
        """Take chunks until the parent closes the connection or dies; then there is nothing more to do here."""
        try:
            while True:
                self.chunks.put(self._connection.recv())
        except (EOFError, OSError):
            os._exit(1)


class _LogToParent(logging.Handler):
    def __init__(self, line: _Channel) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.send("log", record.levelno, "%s", record.getMessage())


def main(descriptor: int) -> None:
    """Score the chunks that come over the connection, until it ends."""
    _die_with_parent()
    keep_pandas_out()
    connection: Connection[Any, Any] = Connection(descriptor)
    line = _Channel(connection)
    prepare_process(_LogToParent(line))
    try:
        setup = connection.recv()
        setup.speak()
        threading.Thread(target=line.receive, daemon=True).start()
        worker = Worker.open(setup)
        freeze_gc()
        line.send("ready", worker.backend)
        _work(worker, line)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent ends the run with it
        line.send("error", picklable(error), traceback.format_exc())
        connection.close()
        os._exit(1)  # at once: threads may be busy


def _work(worker: Worker, line: _Channel) -> None:
    last = monotonic()

    def moved() -> None:
        nonlocal last
        if monotonic() - last >= _PROGRESS_SECONDS:
            last = monotonic()
            line.send("moved", worker.status, worker.stages)

    worker.moved = moved
    for done in worker.run(iter(line.chunks.get, None)):
        line.send("done", done, worker.stages)


def prepare_process(handler: logging.Handler) -> None:
    """Prepare a process for its worker: memory, warnings, and logs, which go to `handler`."""
    keep_freed_memory()
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("spdl").addHandler(logging.NullHandler())
    logger = logging.getLogger("pscr_engine")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def picklable(error: BaseException) -> BaseException:
    """Return the error, or one with its text if it can't be sent to another process."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - any class may refuse, in any way
        copy = None
    return copy if isinstance(copy, BaseException) else RuntimeError(f"{type(error).__name__}: {error}")


def _die_with_parent() -> None:
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):  # not Linux: `_Channel.receive` notices, a moment later
        return
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
