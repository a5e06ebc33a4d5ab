"""Fetch: from a location to encoded bytes."""

from __future__ import annotations

import os
import stat

from ..records import Query, Status

MAX_FILE_BYTES = 512 * 2**20
"""Larger files are not read: no image within any sane limit on pixels needs them."""


def fetch(query: Query, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Read the file at `query.location` into `query.data`, if it isn't there already."""
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
        query.fail(Status.UNREADABLE, error.strerror or str(error))
    except ValueError as error:  # a null byte in the path
        query.fail(Status.UNREADABLE, str(error))


def _read(query: Query, descriptor: int, max_bytes: int) -> None:
    mode, left = (info := os.fstat(descriptor)).st_mode, info.st_size
    if stat.S_ISDIR(mode):
        query.fail(Status.UNREADABLE, "is a directory")
    elif not stat.S_ISREG(mode):
        query.fail(Status.UNREADABLE, "is not a regular file")
    elif left > max_bytes:
        query.fail(Status.TOO_LARGE, f"{left:,} bytes, over the limit of {max_bytes:,}")
    else:
        blocks = []
        while left and (block := os.read(descriptor, left)):
            blocks.append(block)
            left -= len(block)
        query.data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
