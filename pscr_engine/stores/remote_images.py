"""Fetching of images from object stores and the web, many at once.

An image that can't be fetched becomes a failed row. If a whole store is out of reach, the run must end before all
images that are left become failed rows: see `RemoteImages.check`. "Store" here includes the web as a whole.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from ..records import Query, Status
from . import event_loop
from .client import bucket_client, require_obstore
from .objects import image_state
from .trouble import OF_STORE, FetchError, Kind, Room, TooLargeError, Trouble, trouble_of
from .uri import WEB_SCHEMES, StorePath, scheme_of

if TYPE_CHECKING:
    from .web import Web

IN_FLIGHT = 64
"""Requests under way at once, in a process."""

WEB = "the web"
_TRIES = 4
_RETRY_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
# After so many failures with nothing read in between, the store is checked.
_SUSPICIOUS = IN_FLIGHT
_REMEMBERED = 4
_LOOK_SECONDS = 0.5
_CLOSE_SECONDS = 5.0


@dataclass(slots=True)
class _Health:
    """What recent requests say about a bucket, or about the web.

    Args:
        read: the URIs that were read most recently.
        refused: how many requests in a row have failed for reasons that may be the whole store's.
        last: the URI that failed last for such a reason, and why.
        looking: whether the store is being checked now.
    """

    read: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    refused: int = 0
    last: tuple[str, Trouble] | None = None
    looking: bool = False


class RemoteImages:
    """A fetcher of the images that queries have a `uri` for.

    Args:
        private_addresses: whether web servers may have private, loopback and other special addresses.
        on_retry: called when a request is to be sent again, which the client of a bucket also does on its own.
    """

    def __init__(self, *, private_addresses: bool = False, on_retry: Callable[[], None] = lambda: None) -> None:
        self._private, self._on_retry = private_addresses, on_retry
        self._web: Web | None = None
        self._limit = asyncio.Semaphore(IN_FLIGHT)
        self._health: dict[str, _Health] = {}

    def fetch(self, queries: Sequence[Query], max_bytes: int, hold: int, stopping: Event) -> None:
        """Fill in `data` of `queries`, or fail them.

        Args:
            queries: each with a `uri`.
            max_bytes: larger images fail as `too_large`, before they are read if the server states the size.
            hold: how many bytes of images to hold at once, plus one image; other queries stay without data.
            stopping: once set, fetching is given up.

        Raises:
            StoreError: a store is out of reach, or refuses everything.
        """
        self._wait(event_loop.submit(self._fetch_all(queries, max_bytes, Room(hold))), stopping)

    def check(self, stores: Collection[str], *, all_failed: bool, stopping: Event) -> None:
        """Check the stores that images of a chunk could not be read from, before the chunk is committed.

        A store is lost if it doesn't answer, or if it refuses to be listed and images that could be read before can't
        be read any more. Where none could be read before, it is checked only if no image of the whole chunk could be
        read: a few images in somebody else's bucket are just failed rows.

        Args:
            stores: buckets' URIs, or `WEB`, as `place_of` returns them.
            all_failed: whether no image of the chunk could be read.
            stopping: once set, the check is given up.

        Raises:
            StoreError: a store is lost.
        """
        for store in stores:
            health = self._health.get(store)
            if health is not None and health.last is not None and (health.read or all_failed):
                self._wait(event_loop.submit(self._look(store, health)), stopping)

    def close(self) -> None:
        """Close the connections to web servers."""
        if self._web is not None:
            with suppress(TimeoutError):
                event_loop.submit(self._web.close()).result(_CLOSE_SECONDS)
            self._web = None

    @staticmethod
    def _wait(work: Future[Any], stopping: Event) -> None:
        while True:
            try:
                work.result(_LOOK_SECONDS)
            except TimeoutError:
                if work.done():
                    raise
                if stopping.is_set():
                    work.cancel()
                    return
            else:
                return

    async def _fetch_all(self, queries: Sequence[Query], max_bytes: int, room: Room) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for query in queries:
                    group.create_task(self._fetch(query, max_bytes, room))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _fetch(self, query: Query, max_bytes: int, room: Room) -> None:
        assert query.uri is not None
        store = place_of(query.uri)
        health = self._health.setdefault(store, _Health())
        try:
            async with self._limit:
                query.data, state = await self._retried(query.uri, max_bytes, room)
            if state is not None:
                query.note_state(state)
        except TooLargeError as error:
            query.fail(Status.TOO_LARGE, f"{error.size:,} bytes, over the limit of {max_bytes:,}")
        except FetchError as error:
            trouble = error.trouble
            missing = trouble.kind is Kind.MISSING
            query.fail(Status.MISSING if missing else Status.UNREADABLE, f"{query.uri}: {trouble.reason}")
            if trouble.kind not in OF_STORE:
                return
            health.refused, health.last = health.refused + 1, (query.uri, trouble)
            if health.refused >= _SUSPICIOUS and not health.looking:
                await self._look(store, health)
            return
        health.refused = 0
        health.read.append(query.uri)

    async def _retried(self, uri: str, max_bytes: int, room: Room) -> tuple[bytes | None, str | None]:
        """Fetch an image; as long as a retry may help and time is left, try again after a longer pause each time."""
        begun = monotonic()
        for attempt in range(_TRIES):
            try:
                return await self._get(uri, max_bytes, room)
            except FetchError as error:
                late = monotonic() - begun > _RETRY_SECONDS
                if late or attempt == _TRIES - 1 or not _hopeful(uri, error.trouble.kind):
                    raise
                self._on_retry()
                longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 4**attempt)
                await asyncio.sleep(random.uniform(longest / 2, longest))
        raise AssertionError

    async def _get(self, uri: str, max_bytes: int, room: Room) -> tuple[bytes | None, str | None]:
        """Return an image's bytes, None if there is no room for them, and its state, None if the server tells none."""
        if scheme_of(uri) not in WEB_SCHEMES:
            return await _get_stored(uri, max_bytes, room)
        return await self._the_web().get(uri, max_bytes, room), None

    def _the_web(self) -> Web:
        if self._web is None:
            from .web import Web

            self._web = Web(private=self._private)
        return self._web

    async def _look(self, store: str, health: _Health) -> None:
        """Raise StoreError if a store is lost, as `check` defines it."""
        assert health.last is not None
        uri, trouble = health.last
        health.looking = True
        try:
            alive = await (self._web_answers(health) if store == WEB else _bucket_answers(uri))
            if alive is None:
                alive = await self._any_readable(health.read)
        finally:
            health.looking = False
        if alive:
            health.refused = 0
            return
        advice = (
            "check the network"
            if store == WEB
            else "check the network, and the credentials, region and endpoint in the environment"
        )
        raise StoreError(
            f"{store}: images can't be read from there ({trouble.reason}); {advice}, "
            "and give the same command again to go on",
            trouble.kind,
        )

    async def _web_answers(self, health: _Health) -> bool | None:
        """Return True to treat the web as alive; None if undecided: ask for images that could be read before."""
        assert health.last is not None
        # A host that answers and refuses says nothing about the whole web, and neither do a few that don't answer.
        if health.last[1].kind is not Kind.UNREACHABLE or (not health.read and health.refused < _SUSPICIOUS):
            return True
        return None

    async def _any_readable(self, uris: Collection[str]) -> bool:
        for uri in list(uris):
            try:
                await self._get(uri, 0, Room(0))
            except TooLargeError:  # over 0 bytes: the image is there
                return True
            except FetchError as error:
                if error.trouble.kind not in OF_STORE and error.trouble.kind is not Kind.MISSING:
                    return True
            else:
                return True
        return False


def place_of(uri: str) -> str:
    """Return the store that a URI is in: its bucket's URI, or `WEB`."""
    return WEB if scheme_of(uri) in WEB_SCHEMES else "/".join(uri.split("/", 3)[:3])


def _hopeful(uri: str, kind: Kind) -> bool:
    if scheme_of(uri) in WEB_SCHEMES:
        return kind in (Kind.BUSY, Kind.UNREACHABLE, Kind.BROKEN)
    return kind is Kind.BROKEN  # the client has retried the others


async def _get_stored(uri: str, max_bytes: int, room: Room) -> tuple[bytes | None, str | None]:
    require_obstore()
    from obstore import get_async

    try:
        path = StorePath.parse(uri)
        if not path.key:
            raise ValueError("it names a bucket, no object")
        answer = await get_async(bucket_client(path.scheme, path.bucket, "images"), path.key)
        size = answer.meta["size"]
        if size > max_bytes:
            raise TooLargeError(size)
        if not room.take(size):
            return None, None
        data = bytes(await answer.bytes_async())
    except (TooLargeError, asyncio.CancelledError):
        raise
    except Exception as error:  # obstore's errors have no common base
        raise FetchError(trouble_of(error)) from error
    if len(data) != size:
        raise FetchError(Trouble(Kind.BROKEN, f"{len(data)} of {size} bytes came"))
    return data, image_state(size, answer.meta)


async def _bucket_answers(uri: str) -> bool | None:
    """Tell whether a bucket answers to be listed; None if it denies that, which it may do to anybody."""
    from obstore import list as pages

    path = StorePath.parse(uri)
    try:
        async for _ in pages(bucket_client(path.scheme, path.bucket, "images"), path.parent.key or None, chunk_size=1):
            break
    except Exception as error:  # noqa: BLE001 - obstore's errors have no common base
        kind = trouble_of(error).kind
        return None if kind is Kind.DENIED else kind not in (Kind.UNREACHABLE, Kind.BUSY)
    return True
