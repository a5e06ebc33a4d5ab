"""Single objects of a store: look up, read, write, remove, list. Errors are `StoreError`, in one line."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeVar

from ..errors import ManifestError, StoreError, option
from . import event_loop
from .client import bucket_client
from .odd_keys import keys_with_sizes
from .trouble import FetchError, Kind, Trouble, trouble_of
from .uri import StorePath

T = TypeVar("T")

# For answers that end early or make no sense, which obstore doesn't retry itself.
_TRIES = 3
_HEADS_AT_ONCE = 32
# Up to this size an object is one request; beyond, a multipart upload, which appears whole as well.
_SINGLE_PUT_BYTES = 64 * 2**20
_BLOCK = 4 * 2**20
_SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was when it was looked at.

    Args:
        path: where it is.
        size: in bytes.
        state: changes with the content: the ETag, else the version, else the time of modification.
        version: None if the store counts no versions; Google's needs it for a conditional put.
    """

    path: StorePath
    size: int
    state: str
    version: str | None = None

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Return what is after the last "/" of the object's key."""
        return self.path.name

    @property
    def parent(self) -> StorePath:
        """Return the prefix that the object is directly below."""
        return self.path.parent

    def open(
        self,
        mode: str = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open for reading, as `pathlib.Path.open` does. Only a few megabytes at a time are in memory.

        Reads raise FileNotFoundError if it has gone, ManifestError if it has changed, StoreError otherwise.
        """
        buffered = io.BufferedReader(_Ranges(self), _BLOCK)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


Condition = Literal["new"] | StoredObject


class _Ranges(io.RawIOBase):
    """An unbuffered stream of an object's bytes. In sequential reading, the next range is requested ahead."""

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
    """Read an object, or the bytes [start, end) of it.

    Args:
        path: the object's.
        span: start and end; None for the whole object.
        state: the `StoredObject.state` that it must still have; empty for any.

    Raises:
        FileNotFoundError: there is no such object.
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
    """Return the error for a file of a manifest that has changed since the run began."""
    return ManifestError(
        f"{path}: has changed since the run began; use {option('--overwrite', True)} to score the new list"
    )


def look(path: StorePath) -> StoredObject | None:
    """Look up the size and state of an object; return None if there is none.

    Raises:
        StoreError: the store can't tell.
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
    """Look up the size and state of many objects at once; None for those that are not there."""
    with ThreadPoolExecutor(min(_HEADS_AT_ONCE, max(1, len(paths)))) as threads:
        return list(threads.map(look, paths))


def listed(prefix: StorePath) -> Iterator[StoredObject]:
    """Yield all objects below a prefix, in the order of their keys.

    Where one has a key that can't be asked for (`odd_keys.oddity`), this and the rest have an empty `state`.

    Raises:
        StoreError: they can't be listed.
    """
    from obstore import list as pages

    after: str | None = None
    for attempt in range(_TRIES):
        try:
            for page in pages(_client(prefix), prefix.key or None, offset=after, chunk_size=1000):
                for meta in page:
                    yield _stored(prefix.scheme, prefix.bucket, meta)
                    after = meta["path"]
        except GeneratorExit:
            raise
        except Exception as error:
            if prefix.scheme == "s3" and "object with invalid path" in str(error):
                yield from _listed_with_odd_keys(prefix, after or "")
                return
            trouble = trouble_of(error)
            if attempt == _TRIES - 1 or trouble.kind is not Kind.BROKEN:
                raise store_error(prefix, "list", trouble) from error
            time.sleep(_pause(attempt))
        else:
            return


def _listed_with_odd_keys(prefix: StorePath, after: str) -> Iterator[StoredObject]:
    try:
        keys = keys_with_sizes(prefix)
    except FetchError as error:
        raise store_error(prefix, "list", error.trouble) from error
    for key, size in keys:
        if key.encode() > after.encode():
            yield StoredObject(StorePath(prefix.scheme, prefix.bucket, key), size, "")


def put(path: StorePath, data: bytes, only: Condition | None = None) -> bool:
    """Write an object, whole or not at all.

    Args:
        path: the object's.
        data: its content.
        only: a condition: "new" if there must be no object yet, or the object that must be unchanged; None for none.

    Returns:
        Whether the condition held. Also False if the object was written, but the answer was lost and the put repeated.

    Raises:
        StoreError: it can't be written; "NotImplemented" in the message if the store has no conditional puts.
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
    """Remove objects; those that are not there are passed over.

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


def _stored(scheme: str, bucket: str, meta: Any) -> StoredObject:
    return StoredObject(StorePath(scheme, bucket, meta["path"]), meta["size"], _state(meta), meta["version"])


def _state(meta: Any) -> str:
    return str(meta["e_tag"] or meta["version"] or meta["last_modified"].isoformat())


def image_state(size: int, meta: Any) -> str | None:
    """Return what changes with an image in a store, by which a later run can tell; None if only its time is known."""
    return f"{size}:{_state(meta)}" if meta["e_tag"] or meta["version"] else None


def image_states(paths: Sequence[StorePath]) -> list[str | None]:
    """Look up the `image_state` of many images at once; None for those that can't be looked at."""

    def state(path: StorePath) -> str | None:
        from obstore import head

        try:
            meta = _retried(path, "read", lambda: head(_client(path), path.key))
        except (StoreError, ValueError):
            return None
        return image_state(meta["size"], meta)

    with ThreadPoolExecutor(min(_HEADS_AT_ONCE, max(1, len(paths)))) as threads:
        return list(threads.map(state, paths))


def _retried(path: StorePath, what: str, work: Callable[[], T]) -> T:
    for attempt in range(_TRIES):
        try:
            return work()
        except TypeError:  # a bug in this program
            raise
        except Exception as error:  # obstore's errors have no common base
            trouble = trouble_of(error)
            if attempt == _TRIES - 1 or trouble.kind is not Kind.BROKEN:
                raise store_error(path, what, trouble) from error
            time.sleep(_pause(attempt))
    raise AssertionError


def _pause(attempt: int) -> float:
    """Return the seconds to wait before another try: longer each time, and partly random."""
    return random.uniform(0.5, 1.0) * 0.5 * float(2**attempt)


def store_error(path: object, what: str, trouble: Trouble) -> StoreError:
    """Return an error whose one line says what is wrong and what to do."""
    advice = {
        Kind.DENIED: "check the credentials, region and endpoint in the environment, and the permissions",
        Kind.UNREACHABLE: "check the network, and the endpoint in the environment",
        Kind.BUSY: "wait for the store to recover",
        Kind.INVALID: "copy what has a key with empty segments, segments of dots or control characters to another one"
        if what == "list"
        else "keys can't have empty segments, segments of dots or control characters; name another place",
    }.get(trouble.kind, "check the store")
    return StoreError(
        f"{path}: can't {what} it ({trouble.reason}); {advice}, and give the same command again", trouble.kind
    )


def put_where_possible(path: StorePath, data: bytes, only: Condition) -> bool:
    """Put an object if `only` holds, or in any case if the store has no conditional puts; tell whether it was put."""
    try:
        return put(path, data, only)
    except StoreError as error:
        if not any(word in str(error) for word in ("NotImplemented", "501 ", "not supported", "not implemented")):
            raise
    put(path, data)
    time.sleep(_SETTLE_SECONDS)  # another process may write at the same time: then its put is seen on reading back
    return True
