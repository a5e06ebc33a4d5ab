"""Images from object stores and the web, many at once.

Trouble with one image makes a row. Trouble with a whole store must not make a row of every image that is left: see
`RemoteImages.check`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Collection, Sequence
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
# After so many refusals with nothing read in between, it is looked into.
_SUSPICIOUS = IN_FLIGHT
_REMEMBERED = 4
_LOOK_SECONDS = 0.5
_CLOSE_SECONDS = 5.0


@dataclass(slots=True)
class _Health:
    """Of a bucket, or of the web.

    Args:
        read: what was read last.
        refused: how many times in a row nothing could be read, for reasons that may be the store's.
        last: the URI that was refused last, and why.
    """

    read: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    refused: int = 0
    last: tuple[str, Trouble] | None = None
    looking: bool = False


class RemoteImages:
    """Fetches what queries have a `uri` for.

    Args:
        private_addresses: whether web servers may have private, loopback and other special addresses.
    """

    def __init__(self, *, private_addresses: bool = False) -> None:
        self._private = private_addresses
        self._web: Web | None = None
        self._limit = asyncio.Semaphore(IN_FLIGHT)
        self._health: dict[str, _Health] = {}

    def fetch(self, queries: Sequence[Query], max_bytes: int, hold: int, stopping: Event) -> None:
        """Fill in `data` of `queries`, or fail them.

        Args:
            queries: with a `uri`.
            max_bytes: larger images are `too_large`, seen before they are read where the server tells.
            hold: bytes of images that are held at once, and one image more; the rest is left as it is.
            stopping: once set, it is given up.

        Raises:
            StoreError: the store of some of them is out of reach, or refuses everything.
        """
        self._wait(event_loop.submit(self._fetch_all(queries, max_bytes, Room(hold))), stopping)

    def check(self, places: Collection[str], *, all_failed: bool, stopping: Event) -> None:
        """Called for places that images of a chunk could not be read from, before the chunk is committed.

        A place is lost if it doesn't answer, or refuses to be listed and what could be read before can't be read
        any more. Where nothing could be read before, that counts only if nothing of the whole chunk could be: a few
        images in somebody else's bucket are rows.

        Args:
            places: see `place_of`.
            all_failed: whether no image of the chunk could be read.
            stopping: once set, it is given up.

        Raises:
            StoreError: one is lost.
        """
        for place in places:
            health = self._health.get(place)
            if health is not None and health.last is not None and (health.read or all_failed):
                self._wait(event_loop.submit(self._look(place, health)), stopping)

    def close(self) -> None:
        """Close connections."""
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
        place = place_of(query.uri)
        health = self._health.setdefault(place, _Health())
        try:
            async with self._limit:
                query.data = await self._tried(query.uri, max_bytes, room)
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
                await self._look(place, health)
            return
        health.refused = 0
        health.read.append(query.uri)

    async def _tried(self, uri: str, max_bytes: int, room: Room) -> bytes | None:
        """Several times, with a longer pause each time, if there is hope and it doesn't take too long."""
        begun = monotonic()
        for attempt in range(_TRIES):
            try:
                return await self._get(uri, max_bytes, room)
            except FetchError as error:
                late = monotonic() - begun > _RETRY_SECONDS
                if late or attempt == _TRIES - 1 or not _hopeful(uri, error.trouble.kind):
                    raise
                longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 4**attempt)
                await asyncio.sleep(random.uniform(longest / 2, longest))
        raise AssertionError

    async def _get(self, uri: str, max_bytes: int, room: Room) -> bytes | None:
        if scheme_of(uri) not in WEB_SCHEMES:
            return await _get_stored(uri, max_bytes, room)
        return await self._the_web().get(uri, max_bytes, room)

    def _the_web(self) -> Web:
        if self._web is None:
            from .web import Web

            self._web = Web(private=self._private)
        return self._web

    async def _look(self, place: str, health: _Health) -> None:
        """Raise StoreError if a place is lost."""
        assert health.last is not None
        uri, trouble = health.last
        health.looking = True
        try:
            alive = await (self._web_answers(health) if place == WEB else _bucket_answers(uri))
            if alive is None:
                alive = await self._any_readable(health.read)
        finally:
            health.looking = False
        if alive:
            health.refused = 0
            return
        advice = (
            "check the network"
            if place == WEB
            else "check the network, and the credentials, region and endpoint in the environment"
        )
        raise StoreError(
            f"{place}: images can't be read from there ({trouble.reason}); {advice}, "
            "and give the same command again to go on",
            trouble.kind,
        )

    async def _web_answers(self, health: _Health) -> bool | None:
        """A few dead hosts are no news, and neither is one that answers and refuses."""
        assert health.last is not None
        if health.last[1].kind is not Kind.UNREACHABLE or (not health.read and health.refused < _SUSPICIOUS):
            return True
        return None

    async def _any_readable(self, uris: Collection[str]) -> bool:
        for uri in list(uris):
            try:
                await self._get(uri, 0, Room(0))
            except TooLargeError:
                return True
            except FetchError as error:
                if error.trouble.kind not in OF_STORE and error.trouble.kind is not Kind.MISSING:
                    return True
            else:
                return True
        return False


def place_of(uri: str) -> str:
    """What can be lost as a whole: a bucket, or the web."""
    return WEB if scheme_of(uri) in WEB_SCHEMES else "/".join(uri.split("/", 3)[:3])


def _hopeful(uri: str, kind: Kind) -> bool:
    if scheme_of(uri) in WEB_SCHEMES:
        return kind in (Kind.BUSY, Kind.UNREACHABLE, Kind.BROKEN)
    return kind is Kind.BROKEN  # the client has retried the others


async def _get_stored(uri: str, max_bytes: int, room: Room) -> bytes | None:
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
            return None
        data = bytes(await answer.bytes_async())
    except (TooLargeError, asyncio.CancelledError):
        raise
    except Exception as error:  # obstore's errors have no common base
        raise FetchError(trouble_of(error)) from error
    if len(data) != size:
        raise FetchError(Trouble(Kind.BROKEN, f"{len(data)} of {size} bytes came"))
    return data


async def _bucket_answers(uri: str) -> bool | None:
    """Whether a bucket can be listed; None if it says no, which it may do to anybody; False if there is none."""
    from obstore import list as pages

    path = StorePath.parse(uri)
    try:
        async for _ in pages(bucket_client(path.scheme, path.bucket, "images"), path.parent.key or None, chunk_size=1):
            break
    except Exception as error:  # noqa: BLE001 - obstore's errors have no common base
        kind = trouble_of(error).kind
        return None if kind is Kind.DENIED else kind not in (Kind.UNREACHABLE, Kind.BUSY)
    return True
