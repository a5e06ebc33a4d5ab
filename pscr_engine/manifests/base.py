"""What every kind of manifest offers, and how a row's value becomes a query."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import ManifestError
from ..records import Query

if TYPE_CHECKING:
    from ..stores.objects import StoredObject

ManifestFile: TypeAlias = "Path | StoredObject"
"""A file of a manifest: both kinds have `open`, `name` and `parent`."""


@dataclass(frozen=True, slots=True)
class ManifestOptions:
    """How to read a manifest.

    Args:
        path_column: column with each row's image; None for "path", or "image" if there is no "path".
        id_column: column copied to the output's `id`; None for "id" if there is one.
        root: folder, or prefix in an object store, that relative paths start from and that no path may leave; None
            for the manifest's own folder, without a limit.
        allow_http: whether images may be fetched from web servers.
        allow_private_addresses: whether these may have private, loopback and other special addresses.
    """

    path_column: str | None = None
    id_column: str | None = None
    root: str | None = None
    allow_http: bool = False
    allow_private_addresses: bool = False


T = TypeVar("T")


class Reader(Protocol):
    """Reads ranges of a manifest's rows. Ranges in ascending order cost one pass over the manifest in all."""

    def read(self, rows: range) -> Iterator[Query]:
        """The rows of `rows` that there are, in order."""
        ...


State = tuple[Any, ...]


class Columns(Protocol):
    """Reads chosen rows of a manifest's own columns.

    Attributes:
        schema: the columns.
    """

    schema: pa.Schema

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Those rows, which must ascend, in order. Calls in ascending order cost one pass over the manifest in all.

        Raises:
            ManifestError: it can't be read, or has fewer rows.
        """
        ...


class Manifest(ABC):
    """The list of images of a run.

    Attributes:
        fingerprint: changes when the list changes, so that a resumed run can tell.
        num_rows: how many rows there are; None if only reading can tell. For CSV and JSONL it is the
            number of lines, which blank lines and line breaks in quotes make an overestimate.
        id_type: Arrow type of the rows' identifiers; None if they have none.
        column_names: all columns of a table; none for a list of files.
        folder: what relative paths start from, without symbolic links: the same list beside other
            images is another manifest.
    """

    fingerprint: str
    folder: str
    num_rows: int | None
    id_type: pa.DataType | None
    column_names: Sequence[str] = ()
    _files: Sequence[ManifestFile] = ()
    _stamps: Sequence[State | None] = ()

    def _watch(self, files: Sequence[ManifestFile]) -> None:
        """Remember the state of the files that the list is in. Before they are read."""
        self._files, self._stamps = files, [state_of(file) for file in files]

    @property
    def files(self) -> Sequence[ManifestFile]:
        """The files that the list is in."""
        return self._files

    def check_unchanged(self) -> None:
        """See that the list is still what was fingerprinted: it is read while the run goes on, by several processes.

        Raises:
            ManifestError: a file of it has changed or gone.
        """
        for file, before, now in zip(self._files, self._stamps, _states_now(self._files), strict=True):
            if now != before:
                raise ManifestError(f"{file}: has changed since the run began; use --overwrite to score the new list")

    def accept_host_view(self, host: str) -> None:
        """Take the list as another host shows it, where its numbers and times may differ, from now on.

        Raises:
            ManifestError: a file of it is not there, or has another size.
        """
        now = _states_now(self._files)
        for file, before, here in zip(self._files, self._stamps, now, strict=True):
            shown = 1 if isinstance(file, Path) else None  # of a file all hosts show the same size, and no more
            if here is None or before is None or here[:shown] != before[:shown]:
                raise ManifestError(
                    f"{file}: is not the same on {host}, or not there; all nodes must see the same list"
                )
        self._stamps = now

    @abstractmethod
    def reader(self) -> Reader:
        """A reader of its own, with its own open files."""

    def columns(self, names: Sequence[str]) -> Columns:
        """A reader of those of `column_names`."""
        raise NotImplementedError(f"{type(self).__name__} has no columns")

    def rows(self, start: int = 0) -> Iterator[Query]:
        """Every row from `start` on, in order."""
        return self.reader().read(range(start, sys.maxsize))


def state_of(file: ManifestFile) -> State | None:
    """What changes with a file's content, its size first. Of an object, what it was when it was listed."""
    if not isinstance(file, Path):
        return file.size, file.state
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns


def _states_now(files: Sequence[ManifestFile]) -> list[State | None]:
    """`state_of` each, looking again at objects."""
    stored = [file.path for file in files if not isinstance(file, Path)]
    if not stored:
        return [state_of(file) for file in files]
    from ..stores.objects import look_at_all

    found = dict(zip(stored, look_at_all(stored), strict=True))
    states: list[State | None] = []
    for file in files:
        now = file if isinstance(file, Path) else found[file.path]
        states.append(None if now is None else state_of(now))
    return states
