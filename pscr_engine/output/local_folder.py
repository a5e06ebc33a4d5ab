"""An output folder on a file system."""

from __future__ import annotations

import fcntl
import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from ..atomic import atomic_file, create_file, fsync_directory
from .folder import _PARTIAL, LOCK_FILE, holder, in_use
from .shard import WHOLE, Shard

# The workers of a run that was killed share its lock, and need a moment to notice.
_LOCK_SECONDS = 2.0


_LOCK = re.compile(r"\.lock(?:-(\d+)-of-(\d+))?")


def _lock_name(shard: Shard) -> str:
    return LOCK_FILE if shard == WHOLE else f"{LOCK_FILE}-{shard.index}-of-{shard.count}"


def _shard_of_lock(name: str) -> Shard | None:
    match = _LOCK.fullmatch(name)
    if match is None:
        return None
    return WHOLE if match[1] is None else Shard(int(match[1]), int(match[2]))


class LocalFolder:
    """See `Folder`. Files are written beside their place, synced and renamed."""

    readers = 1

    def __init__(self, place: Path) -> None:
        self.place = place

    def make(self) -> None:
        """See `Folder`."""
        self.place.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """See `Folder`."""
        return [name for name in os.listdir(self.place) if not name.startswith(LOCK_FILE)]

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        return (self.place / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        """See `Folder`."""
        return (self.place / name).open("rb")

    def write(self, name: str, content: Callable[[IO[bytes]], object]) -> None:
        """See `Folder`."""
        with atomic_file(self.place / name) as temporary, temporary.open("wb") as file:
            content(file)

    def create(self, name: str, data: bytes) -> bool:
        """See `Folder`."""
        return create_file(self.place / name, data)

    def remove(self, names: Sequence[str]) -> None:
        """See `Folder`."""
        for name in names:
            (self.place / name).unlink(missing_ok=True)
        fsync_directory(self.place)

    def tidy(self, shard: Shard) -> None:
        """See `Folder`. Files that belong to no chunk are left to a run without shards."""
        for name in os.listdir(self.place):
            match = _PARTIAL.fullmatch(name)
            if match and (shard == WHOLE if match[2] is None else shard.owns(int(match[2]))):
                (self.place / name).unlink(missing_ok=True)

    def lock(self, shard: Shard) -> LocalLock:
        """See `Folder`. The system drops the claim of a process that dies."""
        deadline = monotonic() + _LOCK_SECONDS
        file = self._claimed(_lock_name(shard), deadline)
        if isinstance(file, str):
            raise in_use(self.place, file, shard, shard)
        for name in os.listdir(self.place):
            other = _shard_of_lock(name)
            if other is None or other.count == shard.count:
                continue
            theirs = self._claimed(name, deadline)
            if isinstance(theirs, str):
                file.close()
                raise in_use(self.place, theirs, shard, other)
            theirs.close()
        file.truncate(0)
        file.write(holder())
        file.flush()
        return LocalLock(file)

    def _claimed(self, name: str, deadline: float) -> IO[str] | str:
        """The locked file, or the name of who has it."""
        file = (self.place / name).open("a+", encoding="utf-8")
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() < deadline:
                    sleep(0.05)
                    continue
                file.seek(0, io.SEEK_SET)
                who = file.read().strip() or "unknown"
                file.close()
                return who
            return file


class LocalLock:
    """See `Lock`: a file that is open and locked."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @property
    def descriptors(self) -> Sequence[int]:
        """See `Lock`."""
        return (self._file.fileno(),)

    def check(self) -> None:
        """See `Lock`. The system keeps it."""

    def release(self) -> None:
        """See `Lock`."""
        self._file.close()
