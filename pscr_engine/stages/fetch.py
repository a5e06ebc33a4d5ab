"""Fetch: from a file or a URI to encoded bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Sequence
from threading import Event, Lock
from typing import TYPE_CHECKING

from ..records import MAX_FILE_BYTES, Query, RunStats, Status

if TYPE_CHECKING:
    from ..stores.remote_images import RemoteImages


OnRead = Callable[[Sequence[Query]], None]

# A micro-batch holds this many bytes of images, and one image more: the rest is read when it is decoded.
_HELD_BYTES = 64 * 2**20


class Fetcher:
    """Reads images: files one after another, those in object stores and on the web many at a time.

    Every image of a run passes `fetch_all`, or `fetch` if it was left for later, whatever its backend is.

    Args:
        private_addresses: whether web servers may have private, loopback and other special addresses.
        on_read: called in turn with images whose bytes are there, before they are decoded; may mark them as done.
        stats: where bytes and retries are counted.
    """

    def __init__(
        self,
        *,
        private_addresses: bool = False,
        on_read: Sequence[OnRead] = (),
        stats: RunStats | None = None,
    ) -> None:
        self._private, self._on_read = private_addresses, on_read
        self._stats = stats or RunStats()
        self._remote: RemoteImages | None = None
        self._lock = Lock()
        self.stopping = Event()

    def fetch_all(self, queries: Sequence[Query]) -> None:
        """Read the images of a micro-batch until 64 MiB are held; the rest is left to `fetch`, when it is decoded.

        Raises:
            StoreError: an object store is out of reach, or refuses everything.
        """
        if remote := [query for query in queries if query.uri is not None and query.ok]:
            self._fetch_remote(remote)
        held = 0
        for query in queries:
            if held < _HELD_BYTES:
                read_file(query)
                held += query.bytes_held
        self._note([query for query in queries if query.data is not None])

    def fetch(self, query: Query) -> None:
        """Read an image that `fetch_all` has left, when it is needed.

        Raises:
            StoreError: see `fetch_all`.
        """
        if query.uri is not None and query.ok:
            self._fetch_remote([query])
        else:
            read_file(query)
        if query.data is not None:
            self._note([query])

    def _note(self, read: Sequence[Query]) -> None:
        self._stats.read.add(sum([len(query.data or b"") for query in read]), 0.0)
        for call in self._on_read if read else ():
            call(read)

    @property
    def remote(self) -> bool:
        """Tell whether anything has been asked of a store or the web."""
        return self._remote is not None

    def check(self, stores: Collection[str], *, all_failed: bool) -> None:
        """Raise StoreError if a store whose images could not be read is lost, see `RemoteImages.check`."""
        if self._remote is not None:
            self._remote.check(stores, all_failed=all_failed, stopping=self.stopping)

    def close(self) -> None:
        """Close connections."""
        if self._remote is not None:
            self._remote.close()

    def _fetch_remote(self, queries: Sequence[Query]) -> None:
        with self._lock:
            if self._remote is None:
                from ..stores.remote_images import RemoteImages

                self._remote = RemoteImages(
                    private_addresses=self._private, on_retry=lambda: self._stats.retry.add(1, 0.0)
                )
        self._remote.fetch(queries, MAX_FILE_BYTES, _HELD_BYTES, self.stopping)


def read_file(query: Query, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Read the file at `query.location` into `query.data`, if it isn't there already, or fail the query."""
    if not query.ok or query.location is None:
        return
    try:
        # Opened without blocking: a named pipe, or a device, would wait for ever.
        descriptor = os.open(query.location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _read(query, descriptor, max_bytes)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        query.fail(Status.MISSING, f"no such file: {query.location}")
    except OSError as error:
        special = error.errno == errno.ENXIO  # a socket, or a device without a driver
        query.fail(Status.UNREADABLE, "is not a regular file" if special else error.strerror or str(error))
    except ValueError as error:  # a null byte, or half of a surrogate pair
        query.fail(Status.UNREADABLE, f"not a file name: {error}")


def file_state(info: os.stat_result) -> str:
    """Return what changes with a file's content: its size and its time of modification."""
    return f"{info.st_size}:{info.st_mtime_ns}"


def _read(query: Query, descriptor: int, max_bytes: int) -> None:
    mode, left = (info := os.fstat(descriptor)).st_mode, info.st_size
    if stat.S_ISDIR(mode):
        query.fail(Status.UNREADABLE, "is a directory")
    elif not stat.S_ISREG(mode):
        query.fail(Status.UNREADABLE, "is not a regular file")
    elif left > max_bytes:
        query.note_state(file_state(info))
        query.fail(Status.TOO_LARGE, f"{left:,} bytes, over the limit of {max_bytes:,}")
    else:
        blocks = []
        while left and (block := os.read(descriptor, left)):
            blocks.append(block)
            left -= len(block)
        query.data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        query.note_state(file_state(info))
