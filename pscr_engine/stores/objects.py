"""Objects of a store, one at a time: look, read, put, remove, list. Errors are `StoreError`, in one line."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeVar

from ..errors import ManifestError, StoreError
from . import event_loop
from .client import bucket_client
from .trouble import Kind, Trouble, trouble_of
from .uri import StorePath

T = TypeVar("T")

# What obstore doesn't retry itself: answers that make no sense.
_TRIES = 3
_HEADS_AT_ONCE = 32
# Up to here a part is one request; beyond, a multipart upload, which appears whole as well.
_SINGLE_PUT_BYTES = 64 * 2**20
_BLOCK = 4 * 2**20
_SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was when it was looked at.

    Args:
        path: where it is.
        size: bytes.
        state: what changes with its content: ETag, version, or else the time.
        version: where the store counts versions; Google's wants it for a conditional put.
    """

    path: StorePath
    size: int
    state: str
    version: str | None = None

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Of the object, without its prefix."""
        return self.path.name

    @property
    def parent(self) -> StorePath:
        """Its prefix."""
        return self.path.parent

    def open(
        self,
        mode: str = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open for reading, as `pathlib.Path.open` does. Nothing but blocks of a few megabytes is in memory.

        Reads raise FileNotFoundError if it has gone, ManifestError if it has changed, StoreError otherwise.
        """
        buffered = io.BufferedReader(_Ranges(self), _BLOCK)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


Condition = Literal["new"] | StoredObject


class _Ranges(io.RawIOBase):
    """Reads by ranges. Who reads on and on finds the next range on its way already."""

    def __init__(self, stored: StoredObject) -> None:
        self._stored, self._at = stored, 0
        self._ahead: tuple[int, int, Future[bytes]] | None = None
        self._last_end = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stored.size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        start, end = self._at, min(self._at + len(buffer), self._stored.size)
        if start >= end:
            return 0
        data = self._take_ahead(start, end)
        if data is None:
            data = read(self._stored.path, (start, end), self._stored.state)
        if start == self._last_end and end < self._stored.size:
            after = min(end + len(buffer), self._stored.size)
            self._ahead = end, after, event_loop.submit(_read_range(self._stored, end, after))
        self._at = self._last_end = start + len(data)
        buffer[: len(data)] = data
        return len(data)

    def _take_ahead(self, start: int, end: int) -> bytes | None:
        if self._ahead is None:
            return None
        (first, last, future), self._ahead = self._ahead, None
        if first != start or last < end:
            future.cancel()
            return None
        try:
            return future.result()[: end - start]
        except Exception:  # noqa: BLE001 - read again, with retries and an error that says what is wrong
            return None


async def _read_range(stored: StoredObject, start: int, end: int) -> bytes:
    from obstore import get_async

    client = bucket_client(stored.path.scheme, stored.path.bucket, "files")
    got = await get_async(client, stored.path.key, options=_options((start, end), stored.state))
    return bytes(await got.bytes_async())


def _options(span: tuple[int, int] | None, state: str) -> Any:
    options: dict[str, Any] = {}
    if span is not None:
        options["range"] = span
    if state.startswith('"'):  # an ETag; what was read before must not be mixed with something else
        options["if_match"] = state
    return options


def read(path: StorePath, span: tuple[int, int] | None = None, state: str = "") -> bytes:
    """The content of an object, or a span of it, [start, end).

    Args:
        path: of the object.
        span: None for all of it.
        state: of `StoredObject`; another content is refused.

    Raises:
        FileNotFoundError: there is none.
        ManifestError: it is not in that state any more.
        StoreError: anything else.
    """
    from obstore import get

    def once() -> bytes:
        data = bytes(get(_client(path), path.key, options=_options(span, state)).bytes())
        if span is not None and len(data) != span[1] - span[0]:
            raise OSError(f"{len(data)} bytes instead of {span[1] - span[0]}")
        return data

    try:
        return _retried(path, "read", once)
    except StoreError as error:
        if error.kind == Kind.MISSING:
            raise FileNotFoundError(2, "no such object", str(path)) from error
        if error.kind == Kind.CHANGED:
            raise changed(path) from error
        raise


def changed(path: object) -> ManifestError:
    """What a run ends with when a file of its manifest is not what it was."""
    return ManifestError(f"{path}: has changed since the run began; use --overwrite to score the new list")


def look(path: StorePath) -> StoredObject | None:
    """Size and state of an object; None if there is none.

    Raises:
        StoreError: nobody can tell.
    """
    from obstore import head

    if not path.key:
        return None
    try:
        return _stored(path.scheme, path.bucket, _retried(path, "read", lambda: head(_client(path), path.key)))
    except StoreError as error:
        if error.kind == Kind.MISSING:
            return None
        raise


def look_at_all(paths: Sequence[StorePath]) -> list[StoredObject | None]:
    """`look`, at many at once."""
    with ThreadPoolExecutor(min(_HEADS_AT_ONCE, max(1, len(paths)))) as threads:
        return list(threads.map(look, paths))


def listed(prefix: StorePath) -> Iterator[StoredObject]:
    """All objects below a prefix, in the order of their keys.

    Raises:
        StoreError: they can't be listed.
    """
    from obstore import list as pages

    after: str | None = None
    for attempt in range(_TRIES):
        try:
            for page in pages(_client(prefix), prefix.key or None, offset=after, chunk_size=1000):
                for found in page:
                    yield _stored(prefix.scheme, prefix.bucket, found)
                    after = found["path"]
        except GeneratorExit:
            raise
        except Exception as error:
            trouble = trouble_of(error)
            if attempt == _TRIES - 1 or trouble.kind is not Kind.BROKEN:
                raise store_error(prefix, "list", trouble) from error
            time.sleep(_pause(attempt))
        else:
            return


def put(path: StorePath, data: bytes, only: Condition | None = None) -> bool:
    """Write an object, whole or not at all.

    Args:
        path: of the object.
        data: its content.
        only: "new" if there must be none; an object that must still be as it was. None for any case.

    Returns:
        Whether the condition held. Also False if a put was tried again whose answer had been lost.

    Raises:
        StoreError: it can't be written. "NotImplemented" in it: the store knows no conditions.
    """
    import obstore

    options: dict[str, Any] = {"chunk_size": _SINGLE_PUT_BYTES} if only is None else {"use_multipart": False}
    if only == "new":
        options["mode"] = "create"
    elif only is not None:
        facts = {"e_tag": only.state if only.state.startswith('"') else None, "version": only.version}
        options["mode"] = {name: fact for name, fact in facts.items() if fact is not None}
    try:
        _retried(path, "write", lambda: obstore.put(_client(path), path.key, data, **options))
    except StoreError as error:
        if error.kind in (Kind.CHANGED, Kind.MISSING) and only is not None:
            return False
        raise
    return True


def remove(paths: Sequence[StorePath]) -> None:
    """Remove objects; none need be there.

    Raises:
        StoreError: they can't be removed.
    """
    import obstore

    if paths:
        keys = [path.key for path in paths]
        try:
            _retried(paths[0], "remove", lambda: obstore.delete(_client(paths[0]), keys))
        except StoreError as error:
            if error.kind != Kind.MISSING:
                raise


def _client(path: StorePath) -> Any:
    return bucket_client(path.scheme, path.bucket, "files")


def _stored(scheme: str, bucket: str, found: Any) -> StoredObject:
    state = found["e_tag"] or found["version"] or found["last_modified"].isoformat()
    return StoredObject(StorePath(scheme, bucket, found["path"]), found["size"], state, found["version"])


def _retried(path: StorePath, what: str, work: Callable[[], T]) -> T:
    for attempt in range(_TRIES):
        try:
            return work()
        except TypeError:  # a defect of ours
            raise
        except Exception as error:  # obstore's errors have no common base
            trouble = trouble_of(error)
            if attempt == _TRIES - 1 or trouble.kind is not Kind.BROKEN:
                raise store_error(path, what, trouble) from error
            time.sleep(_pause(attempt))
    raise AssertionError


def _pause(attempt: int) -> float:
    """Seconds before another try: longer each time, and not the same for all."""
    return random.uniform(0.5, 1.0) * 0.5 * float(2**attempt)


def store_error(path: object, what: str, trouble: Trouble) -> StoreError:
    """In one line: what is wrong and what to do."""
    advice = {
        Kind.DENIED: "check the credentials, region and endpoint in the environment, and the permissions",
        Kind.UNREACHABLE: "check the network, and the endpoint in the environment",
        Kind.BUSY: "wait for the store to recover",
        Kind.INVALID: "object stores have keys without empty or dotted segments; name another place",
    }.get(trouble.kind, "check the store")
    return StoreError(
        f"{path}: can't {what} it ({trouble.reason}); {advice}, and give the same command again", trouble.kind
    )


def put_where_possible(path: StorePath, data: bytes, only: Condition) -> bool:
    """`put` with a condition; without it where the store knows none, and then a moment for others to be seen."""
    try:
        return put(path, data, only)
    except StoreError as error:
        if not any(word in str(error) for word in ("NotImplemented", "501 ", "not supported", "not implemented")):
            raise
    put(path, data)
    time.sleep(_SETTLE_SECONDS)
    return True
