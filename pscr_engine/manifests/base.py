"""What every kind of manifest offers, and how it can be read."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import ManifestError, option
from ..records import Query

if TYPE_CHECKING:
    from ..stores.objects import StoredObject

ManifestFile: TypeAlias = "Path | StoredObject"
"""A file of a manifest: both kinds have `open`, `name` and `parent`."""

State = tuple[Any, ...]
"""What changes with a file's content: see `state_of`."""


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


class Reader(Protocol):
    """A reader of ranges of a manifest's rows. Ranges in ascending order cost one pass over the manifest in all."""

    def read(self, rows: range) -> Iterator[Query]:
        """Yield the queries of those `rows` that exist, in order."""
        ...


class Columns(Protocol):
    """A reader of chosen rows of a manifest's own columns.

    Attributes:
        schema: names and types of the columns.
    """

    schema: pa.Schema

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Read the given rows, which must ascend. Calls in ascending order cost one pass over the manifest in all.

        Raises:
            ManifestError: it can't be read, or has fewer rows.
        """
        ...


class Manifest(ABC):
    """The list of images of a run. It is sent to worker processes (pickled), so it keeps no open files.

    Attributes:
        kind: its name in fingerprints, and so in every `_run.json`: it can't be changed later.
        may_hold_images: whether its rows may hold the images themselves, which are then nowhere else.
        has_columns: whether it is a table, and not a list of files.
        fingerprint: KIND:DIGEST, where the digest differs if rows, their order, their images' values or their
            identifiers differ, so that a resumed run can tell; embedded images need not be read for that.
        num_rows: how many rows there are; None if only reading can tell. For CSV and JSONL it is the
            number of lines, which blank lines and line breaks in quotes make an overestimate.
        id_type: Arrow type of the rows' identifiers; None if they have none.
        column_names: all columns of a table; none for a list of files.
        folder: what relative paths start from, without symbolic links: the same list beside other
            images is another manifest.
    """

    kind: ClassVar[str]
    may_hold_images: ClassVar[bool] = False
    has_columns: ClassVar[bool] = True
    fingerprint: str
    folder: str
    num_rows: int | None
    id_type: pa.DataType | None
    column_names: Sequence[str] = ()
    _files: Sequence[ManifestFile] = ()
    _stamps: Sequence[State | None] = ()

    def _watch(self, files: Sequence[ManifestFile]) -> None:
        """Remember the state of the files that the list is in; to be called before they are read."""
        self._files, self._stamps = files, [state_of(file) for file in files]

    @property
    def files(self) -> Sequence[ManifestFile]:
        """Return the files that the list is in."""
        return self._files

    def check_files_unchanged(self) -> None:
        """Check that files of this host still are what was fingerprinted; asked before rows of them are committed.

        Objects need no such look: each is read with its ETag as a condition.

        Raises:
            ManifestError: one has changed or gone.
        """
        self._compare([state_of(file) for file in self._files])

    def check_unchanged(self) -> None:
        """Check that the list is still what was fingerprinted: several processes read it while the run goes on.

        Raises:
            ManifestError: a file of it has changed or gone.
        """
        self._compare(_states_now(self._files))

    def _compare(self, states: Sequence[State | None]) -> None:
        for file, before, now in zip(self._files, self._stamps, states, strict=True):
            if now != before:
                raise ManifestError(
                    f"{file}: has changed since the run began; use {option('--overwrite', True)} to score the new list"
                )

    def accept_host_view(self, host: str) -> None:
        """Accept this host's inodes and modification times as the baseline, after checking that sizes agree.

        Args:
            host: this host's name, for messages.

        Raises:
            ManifestError: a file of it is not there, or has another size.
        """
        now = _states_now(self._files)
        for file, before, here in zip(self._files, self._stamps, now, strict=True):
            end = 1 if isinstance(file, Path) else None  # all hosts show the same size of a file, and no more
            if here is None or before is None or here[:end] != before[:end]:
                raise ManifestError(
                    f"{file}: is not the same on {host}, or not there; all nodes must see the same list"
                )
        self._stamps = now

    @abstractmethod
    def reader(self) -> Reader:
        """Return a reader with open files of its own."""

    def columns(self, names: Sequence[str]) -> Columns:
        """Return a reader of some of `column_names`."""
        raise NotImplementedError(f"{type(self).__name__} has no columns")

    def rows(self, start: int = 0) -> Iterator[Query]:
        """Yield the queries of all rows from `start` on, in order."""
        return self.reader().read(range(start, sys.maxsize))


def state_of(file: ManifestFile) -> State | None:
    """Return what changes with a file's content, its size first; for an object, as it was when it was listed."""
    if not isinstance(file, Path):
        return file.size, file.state
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns


def _states_now(files: Sequence[ManifestFile]) -> list[State | None]:
    """Return each file's `state_of` now: objects are looked up again."""
    stored = [file.path for file in files if not isinstance(file, Path)]
    if not stored:
        return [state_of(file) for file in files]
    from ..stores.objects import look_at_all

    objects = dict(zip(stored, look_at_all(stored), strict=True))
    states: list[State | None] = []
    for file in files:
        now = file if isinstance(file, Path) else objects[file.path]
        states.append(None if now is None else state_of(now))
    return states


def too_short(path: object, row: int) -> ManifestError:
    """Return the error for a manifest that has lost rows since it was scored."""
    return ManifestError(f"{path}: has no row {row}, although it was scored; it has changed since the run")
