"""An output folder on a file system."""

from __future__ import annotations

import fcntl
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from ..atomic import atomic_file, create_file, fsync_directory
from .folder import LOCK_FILE, PARTIAL, holder, in_use
from .shard import WHOLE, Shard

# The workers of a run that was killed share its lock, and need a moment to notice.
_LOCK_SECONDS = 2.0
_REPLACING = f"{LOCK_FILE}-replacing"
_LOCK = re.compile(r"\.lock(?:-(\d+)-of-(\d+))?")


class LocalFolder:
    """A `Folder` on a file system. Files are written under a temporary name, synced and renamed."""

    readers = 1

    def __init__(self, location: Path) -> None:
        self.location = location

    def make(self) -> None:
        """Make the folder and those above it, unless they are there."""
        self.location.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """List the names of everything in the folder but locks."""
        return [name for name in os.listdir(self.location) if not name.startswith(LOCK_FILE)]

    def read(self, name: str) -> bytes:
        """Read a file, or raise FileNotFoundError."""
        return (self.location / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return (self.location / name).open("rb")

    def write(self, name: str, content: Callable[[IO[bytes]], object]) -> None:
        """Write a file with what `content` writes, and sync it."""
        with atomic_file(self.location / name) as temporary, temporary.open("wb") as file:
            content(file)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; tell whether there was none."""
        return create_file(self.location / name, data)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files that may be there, in this order."""
        for name in names:
            (self.location / name).unlink(missing_ok=True)
        fsync_directory(self.location)

    def tidy(self, shard: Shard) -> None:
        """Remove half-written files of a shard. Those that belong to no chunk are left to a run without shards."""
        for name in os.listdir(self.location):
            match = PARTIAL.fullmatch(name)
            if match and (shard == WHOLE if match[2] is None else shard.owns(int(match[2]))):
                (self.location / name).unlink(missing_ok=True)

    def lock(self, shard: Shard, purpose: str = "") -> LocalLock:
        """Claim a shard. The system drops the claim of a process that dies."""
        deadline = monotonic() + _LOCK_SECONDS
        file = self._claimed(_lock_name(shard), deadline)
        if isinstance(file, str):
            raise in_use(self.location, file, shard, shard)
        for name in os.listdir(self.location):
            other = _shard_of_lock(name)
            if other is None or other.count == shard.count:
                continue
            theirs = self._claimed(name, deadline)
            if isinstance(theirs, str):
                file.close()
                raise in_use(self.location, theirs, shard, other)
            theirs.close()
        file.truncate(0)
        file.write(f"{holder()}\n{purpose}")
        file.flush()
        return LocalLock(file)

    @contextmanager
    def replacing(self) -> Iterator[LocalLock]:
        """Claim to replace what the folder says of its run; waits while another process does so."""
        with (self.location / _REPLACING).open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield LocalLock(file)

    def wait_for_replacing(self) -> None:
        """Wait until no process has the claim of `replacing`."""
        if (self.location / _REPLACING).exists():
            with self.replacing():
                pass

    def rival(self, shard: Shard, purpose: str) -> str | None:
        """Return who has another shard, of the same count, for another purpose; None if nobody who is alive."""
        for name in os.listdir(self.location):
            other = _shard_of_lock(name)
            if other is None or other.count != shard.count or other == shard:
                continue
            # A process that has just locked it may not have said yet what for.
            deadline = monotonic() + _LOCK_SECONDS
            while isinstance(who := self._claimed(name, 0.0), str) and self._purpose(name) != purpose:
                if monotonic() >= deadline:
                    return who
                sleep(0.05)
            if not isinstance(who, str):
                who.close()
        return None

    def _purpose(self, name: str) -> str:
        return (self.location / name).read_text(encoding="utf-8").partition("\n")[2]

    def _claimed(self, name: str, deadline: float) -> IO[str] | str:
        """Lock a file and return it, or return the name of the process that has it."""
        file = (self.location / name).open("a+", encoding="utf-8")
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() < deadline:
                    sleep(0.05)
                    continue
                file.seek(0, io.SEEK_SET)
                who = file.read().partition("\n")[0].strip() or "unknown"
                file.close()
                return who
            return file


class LocalLock:
    """A `Lock` that is an open, locked file."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @property
    def descriptors(self) -> Sequence[int]:
        """Return the file's descriptor; a process that inherits it shares the claim."""
        return (self._file.fileno(),)

    def check(self) -> None:
        """Do nothing: the system keeps the claim."""

    def release(self) -> None:
        """Close the file: the claim ends when no other process has it open."""
        self._file.close()


def _lock_name(shard: Shard) -> str:
    return LOCK_FILE if shard == WHOLE else f"{LOCK_FILE}-{shard.index}-of-{shard.count}"


def _shard_of_lock(name: str) -> Shard | None:
    match = _LOCK.fullmatch(name)
    if match is None:
        return None
    return WHOLE if match[1] is None else Shard(int(match[1]), int(match[2]))
