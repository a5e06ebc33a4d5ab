"""What a run needs of its output folder and of the lock on it, wherever the folder is."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import IO, Protocol

from ..errors import InUseError, option
from ..stores.uri import Place
from .shard import WHOLE, Shard

LOCK_FILE = ".lock"
PARTIAL = re.compile(r"\.(part-(\d{6,})\.parquet|_?run\.json|_SUCCESS|_process-[0-9a-f]{16})\.partial-\d+")


class Lock(Protocol):
    """The claim of this process to write a shard of a run."""

    @property
    def descriptors(self) -> Sequence[int]:
        """Return the open files of the claim; a process that inherits them shares it."""
        ...

    def check(self) -> None:
        """Raise InUseError if the claim has been lost."""
        ...

    def release(self) -> None:
        """Give the claim up, so that another process can have it."""
        ...


class Folder(Protocol):
    """Files in a flat folder, each of which appears whole or not at all. Picklable.

    Attributes:
        readers: how many files are best read at once.
    """

    readers: int

    @property
    def location(self) -> Place:
        """Return where the folder is."""
        ...

    def make(self) -> None:
        """Make the folder, unless it is there."""
        ...

    def names(self) -> list[str]:
        """List the names of everything in the folder but locks, in no particular order."""
        ...

    def read(self, name: str) -> bytes:
        """Read a file, or raise FileNotFoundError."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        ...

    def write(self, name: str, content: Callable[[IO[bytes]], object]) -> None:
        """Write a file with what `content` writes: once it is there, it is whole and durable."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; tell whether there was none. Several processes may try at once."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove files that may be there, in this order."""
        ...

    def tidy(self, shard: Shard) -> None:
        """Remove what a killed process left half written in a shard, which must be locked."""
        ...

    def lock(self, shard: Shard, purpose: str = "") -> Lock:
        """Claim a shard. Meanwhile no shard can be claimed that divides the run by another count.

        Args:
            shard: the shard.
            purpose: names the run that it is claimed for, for the `rival` of other shards.

        Raises:
            InUseError: another process has this shard, or one of another count.
        """
        ...

    def replacing(self) -> AbstractContextManager[Lock]:
        """Claim to replace what the folder says of its run; waits while another process does so.

        Who has locked a shard and then waits by `wait_for_replacing` is either seen by `rival` within, or sees what
        has been replaced.
        """
        ...

    def wait_for_replacing(self) -> None:
        """Wait until no process has the claim of `replacing`."""
        ...

    def rival(self, shard: Shard, purpose: str) -> str | None:
        """Return who has another shard, of the same count, for another purpose; None if nobody who is alive."""
        ...


def is_partial(name: str) -> bool:
    """Tell whether a file's name is one that a crash can leave behind."""
    return PARTIAL.fullmatch(name) is not None


def in_use(location: Place, holder: str, shard: Shard, other: Shard) -> InUseError:
    """Return the error for a process that wants `shard` while `holder` has `other`."""
    if shard.count == other.count:
        whose = "another run" if shard == WHOLE else f"another process with {option('--shard')} {shard}"
        return InUseError(
            f"{location}: {whose} is writing there ({holder}); wait for it, or choose another {option('--out')}"
        )
    whose = f"a run without {option('--shard')}" if other == WHOLE else f"shard {other}"
    return InUseError(
        f"{location}: {whose} is writing there ({holder}); wait for it before you change the number of shards, "
        f"or choose another {option('--out')}"
    )


def holder() -> str:
    """Return a name for this process, for the messages of other processes."""
    return f"process {os.getpid()} on {platform.node()}"
