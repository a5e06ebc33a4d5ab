"""The gatherer: requests of many threads wait in one queue, and go to the backend's stages batch by batch.

One thread takes from the queue, so that a backend has one set of stages open at a time, whoever calls. A request goes
at once if nothing is under way: who calls alone never waits for company. Otherwise it waits until there are enough
images for a batch, or the stages run empty, or `max_wait_ms` have passed. Requests with other settings need other
stages: the queue is strictly first come, first served, and stages are changed when all that is under way is done.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from threading import Condition, Thread, current_thread
from time import monotonic

from ..backends.base import Backend
from ..errors import BackendError, BusyError, UsageError, one_line
from ..records import MicroBatch
from .request import Request
from .stage_threads import InterruptedBatchError, StageThreads

log = logging.getLogger("pscr_engine")

CLOSED = "this scorer is closed; open another one with Scorer.open"
FORKED = "this scorer was opened before a fork, by another process: open one in each process, after the fork"
# What is under way when a scorer is closed gets so long, then it is given up: a store may never answer.
_LAST_SECONDS = 10.0
_LONGEST_WAIT_MS = 60_000


class Gatherer:
    """Scores the requests of many threads on one backend.

    Args:
        backend: what scores; it is used by one set of stages at a time.
        max_wait_ms: how long a request may wait for others while the backend is busy.
        max_waiting: how many images may wait.

    Raises:
        UsageError: one of the two is no number that makes sense.
    """

    def __init__(self, backend: Backend, *, max_wait_ms: float, max_waiting: int) -> None:
        check_limits(max_wait_ms, max_waiting)
        self._backend, self._max_wait, self._max_waiting = backend, max_wait_ms / 1000, max_waiting
        self._process = os.getpid()
        self._changed = Condition()  # of everything below
        self._queue: deque[Request] = deque()
        self._images = 0
        self._under_way = 0
        self._closed = False
        self._thread: Thread | None = None
        # Of the gathering thread alone.
        self._stages: StageThreads | None = None

    # for callers ----------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Return how many images wait in the queue."""
        return self._images

    def require_usable(self) -> None:
        """Raise UsageError if it is closed, or another process's."""
        if os.getpid() != self._process:  # before any lock: another thread may have held it at the fork, for ever
            raise UsageError(FORKED)
        if self._closed:
            raise UsageError(CLOSED)

    def submit(self, *requests: Request, wait: bool) -> None:
        """Put requests into the queue, all or none.

        What finds nobody waiting has room, however many images it has.

        Args:
            requests: their answers come by their futures.
            wait: whether to wait for room, rather than to fail.

        Raises:
            BusyError: there is no room, and `wait` is false.
            UsageError: closed, be it meanwhile; or opened in another process.
        """
        self.require_usable()
        images = sum(request.images for request in requests)
        with self._changed:
            while not self._closed and self._images and self._images + images > self._max_waiting:
                if not wait:
                    raise BusyError(
                        f"{self._images} images are waiting to be scored, and no more than {self._max_waiting} may "
                        "(max_waiting): try again later"
                    )
                self._changed.wait()
            if self._closed:
                raise UsageError(CLOSED)
            if self._thread is None:
                thread = Thread(target=self._gather, name="pscr-gather", daemon=True)
                thread.start()  # before anything is promised: this host may let a process have no more threads
                self._thread = thread
                atexit.register(self.close)
            self._queue.extend(requests)
            self._images += images
            self._changed.notify_all()

    def withdraw(self, requests: Iterable[Request]) -> None:
        """Take requests whose caller has gone out of the queue; those under way are scored for nobody."""
        if os.getpid() != self._process:
            return
        with self._changed:
            for request in requests:
                request.withdrawn = True
                request.answer.cancel()
                with suppress(ValueError):  # it is under way, or done
                    self._queue.remove(request)
                    self._images -= request.images
            self._changed.notify_all()

    def release(self) -> None:
        """End all that waits, and the threads once they are done; don't wait for that."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._closed = True
            left = list(self._queue)
            self._queue.clear()
            self._images = 0
            self._changed.notify_all()
        for request in left:
            _fail(request, UsageError(CLOSED))

    def close(self) -> bool:
        """End all that waits with UsageError, finish what is under way, and end the threads.

        Returns:
            Whether it is this process's: another's is left alone.
        """
        self.release()
        if os.getpid() != self._process:
            return False
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join()
        return True

    # in the gathering thread ----------------------------------------------------------------------------------------

    def _gather(self) -> None:
        taken: list[Request] | None = None
        try:
            while (taken := self._take()) is not None:
                if taken:
                    self._begin(taken)
                else:
                    self._close_stages()
                taken = None  # the thread must not keep it while it waits for more
            self._finish()
        except BaseException as error:
            # Nobody may wait for a thread that is dead.
            with self._changed:
                left = [*(taken or ()), *self._queue]
            for request in left:
                _fail(request, error)
            self.release()
            raise
        finally:
            atexit.unregister(self.close)

    def _take(self) -> list[Request] | None:
        """Wait for what goes to the backend next; [] if stages that failed are to be closed, None at the end."""
        with self._changed:
            while not self._closed:
                if self._stages is not None and self._stages.spoilt and not self._under_way:
                    return []
                pause = self._pause()
                if pause == 0 and (taken := self._pop()):
                    self._changed.notify_all()  # there is room
                    return taken
                if pause != 0:
                    self._changed.wait(pause)
            return None

    def _pause(self) -> float | None:
        """Return for how many seconds to wait before taking from the queue; None until something has changed."""
        if not self._queue:
            return None
        head, stages = self._queue[0], self._stages
        if not self._under_way:
            return 0
        if stages is None or not stages.serves(head.key):
            return None  # other stages are needed, once these are done
        if self._under_way >= stages.capacity:
            return None
        if head.alone or sum(each.images for each in self._leading()) >= head.settings.batch_size:
            return 0
        left = head.arrived + self._max_wait - monotonic()
        return left if left > 0 else 0

    def _leading(self) -> list[Request]:
        """Return the requests at the queue's beginning that can share a batch: up to a full one."""
        found: list[Request] = []
        images = 0
        for request in self._queue:
            if found and (request.alone or request.key != found[0].key):
                break
            if found and (images >= found[0].settings.batch_size or images + request.images > found[0].settings.rows):
                break
            found.append(request)
            images += request.images
            if request.alone:
                break
        return found

    def _pop(self) -> list[Request] | None:
        """Take the requests of the next micro-batch; None if all of them have been cancelled."""
        taken = self._leading()
        for request in taken:
            self._queue.popleft()
            self._images -= request.images
        wanted = [request for request in taken if request.start()]
        if not wanted:
            return None
        self._under_way += 1
        return wanted

    def _begin(self, taken: list[Request]) -> None:
        try:
            if self._stages is None or not self._stages.serves(taken[0].key):
                self._close_stages()
                self._stages = StageThreads(self._backend, taken[0].settings, self._done)
        except Exception as error:  # noqa: BLE001 - it is the answer to those who wait
            self._one_less()
            for request in taken:
                _fail(request, error)
            return
        queries = [query for request in taken for query in request.queries]
        self._stages.submit(MicroBatch(queries, tag=taken))

    def _finish(self) -> None:
        """Let what is under way end, for a while; then close."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._under_way, _LAST_SECONDS) and self._stages is not None:
                self._stages.stop()
            self._changed.wait_for(lambda: not self._under_way)
        self._close_stages()

    def _close_stages(self) -> None:
        stages, self._stages = self._stages, None
        try:
            if stages is not None:
                stages.close()
        except Exception as error:  # noqa: BLE001 - whoever waits now has nothing to do with it
            log.warning("while a scorer's buffers were given back: %s", one_line(error, 300))

    # in the stages' threads -----------------------------------------------------------------------------------------

    def _done(self, batch: MicroBatch, error: BaseException | None) -> None:
        """Answer the requests of a micro-batch, or put them back into the queue if they may yet be scored."""
        requests: list[Request] = batch.tag
        interrupted = isinstance(error, InterruptedBatchError)
        if interrupted or (error is not None and _worth_another_try(error, requests)):
            # One of them may be to blame: each gets its own try, and only that one the error.
            with self._changed:
                again = [] if self._closed else [request for request in requests if not request.withdrawn]
                for request in reversed(again):
                    request.restore()
                    request.alone = request.alone or not interrupted
                    self._queue.appendleft(request)
                    self._images += request.images
            for request in requests:
                if request not in again:
                    _fail(request, UsageError(CLOSED))
        elif error is not None:
            _fail(requests[0], error)
        else:
            for request in requests:
                request.answer.set_result(request.queries)
        self._one_less()

    def _one_less(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()


def _worth_another_try(error: BaseException, requests: list[Request]) -> bool:
    """Tell whether requests may yet be scored, each alone: neighbours of the culprit, and those that found no memory.

    A device may have had too little memory for a moment, or for the batches of others.
    """
    return len(requests) > 1 or (isinstance(error, BackendError) and not requests[0].alone)


def _fail(request: Request, error: BaseException) -> None:
    if request.answer.done():  # cancelled by its caller
        return
    with suppress(Exception):
        request.answer.set_exception(error)


def check_limits(max_wait_ms: float, max_waiting: int) -> None:
    """Raise UsageError if one of a gatherer's limits is no number that makes sense."""
    if isinstance(max_wait_ms, bool) or not 0 <= max_wait_ms <= _LONGEST_WAIT_MS:
        raise UsageError(f"max_wait_ms {max_wait_ms}: must be from 0 to {_LONGEST_WAIT_MS}")
    if isinstance(max_waiting, bool) or max_waiting < 1:
        raise UsageError(f"max_waiting {max_waiting}: must be at least 1")
