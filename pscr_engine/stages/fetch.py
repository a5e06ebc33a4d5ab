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
        # Checked before open(), which would wait for ever on a named pipe.
        mode, size = (info := os.stat(query.location)).st_mode, info.st_size  # noqa: PTH116 - the hot path
        if stat.S_ISDIR(mode):
            query.fail(Status.UNREADABLE, "is a directory")
        elif not stat.S_ISREG(mode):
            query.fail(Status.UNREADABLE, "is not a regular file")
        elif size > max_bytes:
            query.fail(Status.TOO_LARGE, f"{size:,} bytes, over the limit of {max_bytes:,}")
        else:
            with open(query.location, "rb") as file:
                query.data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        query.fail(Status.MISSING, f"no such file: {query.location}")
    except OSError as error:
        query.fail(Status.UNREADABLE, error.strerror or str(error))
    except ValueError as error:  # a null byte in the path
        query.fail(Status.UNREADABLE, str(error))
