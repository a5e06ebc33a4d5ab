"""Queries without end, scored in order: a few requests ahead of what is taken."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from queue import Full, Queue
from threading import Event, Thread

from ..errors import UsageError
from ..records import Query, take_group
from ..stages.base import StageSettings
from .gatherer import CLOSED, Gatherer
from .request import Request

# Whole batches; where a batch is one image, a few: hand-overs between threads are cheap, but callers of single images
# wait for whole requests of others.
_IMAGES = 4
# Requests of one caller at a time, waiting or under way.
_AHEAD = 6
_WAIT_SECONDS = 0.05


def requests_of(queries: Iterable[Query], settings: Callable[[], StageSettings]) -> Iterator[Request]:
    """Group queries into requests; fewer at the end, or where large images are in memory."""
    queries = iter(queries)
    while True:
        wanted = settings()
        group = take_group(queries, min(wanted.rows, max(wanted.batch_size, _IMAGES)))
        if not group:
            return
        yield Request(group, wanted)


def score_all(gatherer: Gatherer, queries: Iterable[Query], settings: Callable[[], StageSettings]) -> list[Query]:
    """Score queries, which are taken in this thread, and return them in their order.

    Raises:
        UsageError: the gatherer is closed, be it meanwhile.
        Exception: what `queries` or a stage raised; what was still waiting has been withdrawn.
    """
    scored: list[Query] = []
    ahead: deque[Request] = deque()
    try:
        for request in requests_of(queries, settings):
            gatherer.submit(request, wait=True)
            ahead.append(request)
            if len(ahead) == _AHEAD:
                scored += _answer_of(ahead.popleft())
        while ahead:
            scored += _answer_of(ahead.popleft())
    finally:
        gatherer.withdraw(ahead)
    return scored


def stream(gatherer: Gatherer, queries: Iterable[Query], settings: Callable[[], StageSettings]) -> Generator[Query]:
    """Score queries, which are taken in a thread of their own, and yield them in their order.

    Raises:
        UsageError: the gatherer is closed, be it meanwhile.
        Exception: what `queries` or a stage raised.
    """
    reader = _Reader(gatherer, queries, settings)
    try:
        while (request := reader.next()) is not None:
            for query in _answer_of(request):
                yield query
                gatherer.require_usable()
            gatherer.require_usable()
    finally:
        reader.close()


def _answer_of(request: Request) -> list[Query]:
    try:
        return request.answer.result()
    except CancelledError:
        raise UsageError(CLOSED) from None


class _Reader:
    """Takes queries in a thread, asks for their scores, and hands the requests on in order."""

    def __init__(self, gatherer: Gatherer, queries: Iterable[Query], settings: Callable[[], StageSettings]) -> None:
        self._gatherer, self._process = gatherer, os.getpid()
        self._requests: Queue[Request | BaseException | None] = Queue(_AHEAD)
        self._stopping = Event()
        # A daemon: a source that blocks for ever must not keep the program from ending.
        Thread(target=self._read, args=(queries, settings), name="pscr-read", daemon=True).start()

    def next(self) -> Request | None:
        """Wait for the next request; return None at the end.

        Raises:
            Exception: what the source raised.
        """
        item = self._requests.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Drop what nobody will take. The thread ends when its source has given what it was asked for."""
        if os.getpid() != self._process:
            return
        self._stopping.set()
        with self._requests.mutex:
            left = [item for item in self._requests.queue if isinstance(item, Request)]
            self._requests.queue.clear()
            self._requests.not_full.notify_all()
        self._gatherer.withdraw(left)

    def _read(self, queries: Iterable[Query], settings: Callable[[], StageSettings]) -> None:
        end: BaseException | None = None
        try:
            for request in requests_of(queries, settings):
                if self._stopping.is_set():
                    break
                self._gatherer.submit(request, wait=True)
                if not self._put(request):
                    self._gatherer.withdraw([request])
                    break
        except BaseException as error:  # noqa: BLE001 - raised again by `next`
            end = error
        finally:
            close = getattr(queries, "close", None)
            if close is not None:
                close()
        self._put(end)

    def _put(self, item: Request | BaseException | None) -> bool:
        while not self._stopping.is_set():
            try:
                self._requests.put(item, timeout=_WAIT_SECONDS)
            except Full:
                continue
            return True
        return False
