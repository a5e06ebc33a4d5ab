"""The Ray actor that scores: one worker on some node of the cluster, driven by calls from the driver."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from typing import Any, NamedTuple

from ...errors import OutputError, PscrError, one_line, option
from ...host import freeze_gc
from ...output.parts import Parts
from ...output.run_file import RUN_FILE
from ...records import StageCounts
from ..image_folders import identity_of
from ..ledger import Chunk, ChunkDone
from ..worker import Worker, WorkerSetup
from ..worker_process import picklable, prepare_process

# Ray ends actors with their driver and their raylet; this is for hosts that are cut off from both.
_SILENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.5


class ActorSetup(NamedTuple):
    """All that an actor needs to know.

    Args:
        worker: the setup of its worker; `folder` is the driver's, and is replaced by this node's.
        run: the content of the output folder's `_run.json`, as the driver sees it.
        working_directory: the driver's, which relative paths start from.
    """

    worker: WorkerSetup
    run: Mapping[str, Any]
    working_directory: str


@dataclass(slots=True)
class Answer:
    """What an actor says. At most one of `done` and `error` is there.

    Args:
        done: the chunk whose part is durable.
        error: what ends this worker; a run that can't do without it ends, too.
        traceback: where in the actor it was raised.
        under_way: status → number of rows scored, but not committed yet.
        stages: items and seconds per stage so far.
        logged: level and text of messages since the last answer.
        node: name of the host that the actor is on.
        node_id: what Ray calls that host.
        gpus: Ray's numbers of this actor's GPUs.
        backend: name of the worker's backend, once it is open.
        number: of this answer; counts up, since answers need not arrive in order.
    """

    done: ChunkDone | None = None
    error: BaseException | None = None
    traceback: str = ""
    under_way: Counter[str] = field(default_factory=Counter)
    stages: StageCounts = field(default_factory=dict)
    logged: list[tuple[int, str]] = field(default_factory=list)
    node: str = ""
    node_id: str = ""
    gpus: str = ""
    backend: str = ""
    number: int = 0


class _Kept(logging.Handler):
    """Keeps messages until somebody asks."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: deque[tuple[int, str]] = deque(maxlen=1000)

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append((record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[int, str]]:
        messages = []
        with suppress(IndexError):
            while True:
                messages.append(self._messages.popleft())
        return messages


class ScoringActor:
    """Scores the chunks that it is given, several at once: the next ones wait in its pipeline's queue.

    Its methods are called from several threads. They raise nothing: errors are part of the answer, so that they
    arrive as what they are.
    """

    def __init__(self, setup: ActorSetup) -> None:
        self._setup = setup
        self._chunks: SimpleQueue[Chunk] = SimpleQueue()
        self._waiting: dict[int, Future[Answer]] = {}
        self._failure: Answer | None = None
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._worker: Worker | None = None
        self._kept = _Kept()
        self._numbers = count(1)
        self._asked_at = time.monotonic()

    def open(self) -> Answer:
        """Load the bundle, and see that this node has the same files as the driver."""
        try:
            prepare_process(self._kept)
            self._setup.worker.speak()
            with suppress(OSError):  # not on this node: then relative paths are not, either
                os.chdir(self._setup.working_directory)
            if not self._is_our_output():
                raise OutputError(
                    f"{self._setup.worker.config.out}: is not the same folder on node {_node()} as on this host; with "
                    f"{option('--runner', 'ray')}, choose an {option('--out')} on a file system that all nodes share, "
                    f"or in an object store"
                )
            self._setup.worker.manifest.accept_host_view(_node())
            worker = Worker.open(self._setup.worker._replace(folder=self._image_folder()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver ends the run with it
            return self._answer(error=_portable(error), traceback=traceback.format_exc(), **_node_and_gpus())
        freeze_gc()
        self._worker = worker
        threading.Thread(target=self._work, args=[worker], name="score", daemon=True).start()
        self._asked_at = time.monotonic()
        threading.Thread(target=self._leave_in_time, args=[os.getppid()], name="leave", daemon=True).start()
        return self._answer(**_node_and_gpus())

    def score(self, chunk: Chunk) -> Answer:
        """Score a chunk, and return when its part is durable."""
        future: Future[Answer] = Future()
        with self._lock:
            if self._failure is not None:
                return self._failure
            self._waiting[chunk.index] = future
        self._chunks.put(chunk)
        return future.result()

    def progress(self) -> Answer:
        """Say how far it is. An actor that nobody asks for long ends itself: its chunks are somebody else's by then."""
        self._asked_at = time.monotonic()
        answer = self._answer()
        answer.under_way = self._under_way  # after the number: what is committed by now has a lower one
        return answer

    def _work(self, worker: Worker) -> None:
        def moved() -> None:
            self._under_way = Counter(worker.status)

        worker.moved = moved
        worker.before_commit = self._check_output
        try:
            for done in worker.run(iter(self._chunks.get, None)):
                self._under_way = Counter()
                with self._lock:
                    future = self._waiting.pop(done.index)
                future.set_result(self._answer(done=done))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the driver ends the run with it
            with self._lock:
                self._failure = self._answer(error=_portable(error), traceback=traceback.format_exc())
                for future in self._waiting.values():
                    future.set_result(self._failure)

    def _leave_in_time(self, raylet: int) -> None:
        while os.getppid() == raylet and time.monotonic() - self._asked_at < _SILENCE_SECONDS:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)  # at once: parts are whole or not there

    def _answer(self, **facts: Any) -> Answer:
        stages = self._worker.stages if self._worker is not None else {}
        backend = self._worker.backend if self._worker is not None else ""
        return Answer(stages=stages, logged=self._kept.taken(), backend=backend, number=next(self._numbers), **facts)

    def _check_output(self) -> None:
        """Raise OutputError if another run has taken the folder, should this host have been cut off from the driver."""
        if not self._is_our_output():
            raise OutputError(f"{self._setup.worker.config.out}: another run has taken this folder")

    def _is_our_output(self) -> bool:
        out = self._setup.worker.config.out
        try:
            return bool(json.loads(Parts(out).file(RUN_FILE)) == self._setup.run)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        except OSError as error:
            raise PscrError(
                f"{out}: can't be read on node {_node()} ({one_line(error, 200)}); mend that and give the same command "
                "again to go on"
            ) from error

    def _image_folder(self) -> tuple[int, int] | None:
        """Identify the images' folder on this node, whose numbers may differ from those elsewhere."""
        folder = self._setup.worker.manifest.folder
        found = identity_of(folder)
        if found is None and self._setup.worker.folder is not None:
            raise PscrError(f"{folder}: the images' folder is not there on node {_node()}; mount it on every node")
        return found


def _node() -> str:
    return os.uname().nodename


def _node_and_gpus() -> dict[str, str]:
    import ray

    context = ray.get_runtime_context()
    gpus = ",".join(map(str, context.get_accelerator_ids().get("GPU", [])))
    return {"node": _node(), "node_id": str(context.get_node_id()), "gpus": gpus}


def _portable(error: BaseException) -> BaseException:
    """Return the error, or one with its text if the driver may lack its class: it need not have what this node has."""
    known = type(error).__module__ in ("builtins", PscrError.__module__)
    return picklable(error) if known else RuntimeError(f"{type(error).__name__}: {error}")
