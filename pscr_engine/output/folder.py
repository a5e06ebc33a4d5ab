"""Output folders: what is needed of one, and the one on a file system."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from ..errors import OutputError
from ..stores.uri import Place
from .shard import WHOLE, Shard

LOCK_FILE = ".lock"
_PARTIAL = re.compile(r"\.(part-(\d{6,})\.parquet|run\.json|_SUCCESS)\.partial-\d+")


class Lock(Protocol):
    """A shard of a run, claimed for this process."""

    @property
    def descriptors(self) -> Sequence[int]:
        """Open files; a process that inherits them shares the claim."""
        ...

    def check(self) -> None:
        """Raise OutputError if the claim has been lost."""
        ...

    def release(self) -> None:
        """Let another process have it."""
        ...


class Folder(Protocol):
    """Files in a flat folder, each of which appears whole or not at all. Picklable.

    Attributes:
        readers: how many files are best read at once.
    """

    readers: int

    @property
    def place(self) -> Place:
        """Where it is."""
        ...

    def make(self) -> None:
        """Make it, unless it is there."""
        ...

    def names(self) -> list[str]:
        """Of everything in it, bar locks, in no particular order."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file, or FileNotFoundError."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        ...

    def write(self, name: str, content: Callable[[IO[bytes]], object]) -> None:
        """Write a file with what `content` writes: once it is there, it is whole and durable."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; whether there was none. Several processes may try at once."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove files that may be there, in this order."""
        ...

    def tidy(self, shard: Shard) -> None:
        """Remove what a process that was killed left half written in a shard that is locked."""
        ...

    def lock(self, shard: Shard) -> Lock:
        """Claim a shard. Shards of another number of shares can't be claimed meanwhile.

        Raises:
            OutputError: another process has it, or one of another number.
        """
        ...


def is_partial(name: str) -> bool:
    """Whether a file is what a crash can leave."""
    return _PARTIAL.fullmatch(name) is not None


def in_use(place: Place, holder: str, shard: Shard, other: Shard) -> OutputError:
    """What a process is told that wants what another has."""
    if shard.count == other.count:
        whose = "another run" if shard == WHOLE else f"another process with --shard {shard}"
        return OutputError(f"{place}: {whose} is writing there ({holder}); wait for it, or choose another --out")
    whose = "a run without --shard" if other == WHOLE else f"shard {other}"
    return OutputError(
        f"{place}: {whose} is writing there ({holder}); wait for it before you change the number of shards, "
        "or choose another --out"
    )


def holder() -> str:
    """This process, for others' messages."""
    return f"process {os.getpid()} on {platform.node()}"
