"""What every kind of manifest offers, and how a row's value becomes a query."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import ManifestError
from ...records import Query, Status
from ...stores.uri import WEB_SCHEMES, Place, StorePath, is_stored, place, scheme_of

if TYPE_CHECKING:
    from ...stores.objects import StoredObject

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

    def settle_on(self, host: str) -> None:
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
    from ...stores.objects import look_at_all

    found = dict(zip(stored, look_at_all(stored), strict=True))
    states: list[State | None] = []
    for file in files:
        now = file if isinstance(file, Path) else found[file.path]
        states.append(None if now is None else state_of(now))
    return states


class ForwardReader(Generic[T]):
    """Reads ranges of what can only be read from its beginning.

    Args:
        records: gives all records, from the first on.
        make: turns a row's number and its record into a query. Not called for rows that are passed over.
    """

    def __init__(self, records: Callable[[], Iterator[T]], make: Callable[[int, T], Query]) -> None:
        self._open, self._make = records, make
        self._records, self._next = records(), 0

    def read(self, rows: range) -> Iterator[Query]:
        """See `Reader.read`. A range before the last one starts from the beginning again."""
        if rows.start < self._next:
            self._records, self._next = self._open(), 0
        for _ in islice(self._records, rows.start - self._next):
            self._next += 1
        for record in islice(self._records, len(rows)):
            self._next += 1
            yield self._make(self._next - 1, record)


class ForwardColumns(Generic[T]):
    """See `Columns`. Reads what can only be read from its beginning.

    Args:
        schema: the columns.
        records: gives all records, from the first on.
        to_table: turns some of them into rows.
        path: of the manifest, for errors.
    """

    def __init__(
        self, schema: pa.Schema, records: Iterator[T], to_table: Callable[[list[T]], pa.Table], path: object
    ) -> None:
        self.schema, self._records, self._to_table, self._path = schema, records, to_table, path
        self._next = 0

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """See `Columns.take`. Rows before those of an earlier call are gone."""
        picked = []
        for row in rows.tolist():
            assert row >= self._next
            record = next(islice(self._records, row - self._next, None), None)
            if record is None:
                raise too_short(self._path, row)
            picked.append(record)
            self._next = row + 1
        return self._to_table(picked)


def too_short(path: object, row: int) -> ManifestError:
    """The error for a manifest that has lost rows."""
    return ManifestError(f"{path}: has no row {row}, although it was scored; it has changed since the run")


def text_array(values: Sequence[Any]) -> pa.Array:
    """A column of text. What is not Unicode becomes question marks."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([utf8(value) for value in values], pa.string())


def utf8(text: Any) -> str | None:
    """Text that Parquet can hold: what is not Unicode becomes question marks."""
    if text is None:
        return None
    try:
        return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can express
        return str(text).encode("utf-8", "replace").decode()


def choose_columns(path: object, available: Sequence[str], options: ManifestOptions) -> tuple[str, str | None]:
    """Names of the image column and, if any, of the identifier column.

    Raises:
        ManifestError: a column isn't there; the message names those that are.
    """

    def require(name: str, flag: str) -> str:
        if name not in available:
            listed = ", ".join(available) or "none"
            raise ManifestError(f"{path}: no column {name!r} (columns: {listed}); choose one with {flag}")
        return name

    image = options.path_column
    if image is None:
        image = "image" if "path" not in available and "image" in available else "path"
    image = require(image, "--path-column")
    if options.id_column is not None:
        return image, require(options.id_column, "--id-column")
    return image, "id" if "id" in available and image != "id" else None


@dataclass(frozen=True)
class QueryMaker:
    """Turns a manifest's value (path, URI, bytes or {bytes, path}) into a query.

    Args:
        base: folder that relative paths start from.
        confine: refuse paths that leave `base`.
        allow_http: take images from web servers, too.
    """

    base: Place
    confine: bool = False
    allow_http: bool = False

    @classmethod
    def for_folder(cls, folder: Place, options: ManifestOptions) -> QueryMaker:
        """Relative paths start from `--root`, else from the manifest's `folder`."""
        root = folder if options.root is None else place(options.root, "--root")
        confine = options.root is not None
        if isinstance(root, StorePath):
            return _StoreQueryMaker(root, confine, options.allow_http)
        if confine and not root.is_dir():
            raise ManifestError(f"--root {root}: no such folder")
        return cls(root, confine, options.allow_http)

    def make(self, row: int, value: object, id_: object = None) -> Query:
        """The query of one row. A value that names no image gives a query that has failed already."""
        query = Query(row, id=id_)
        try:
            self._fill(query, value)
        except ValueError as error:  # a malformed URI, a null byte
            query.fail(Status.UNREADABLE, f"not a path or URI: {error}")
        return query

    @cached_property
    def folder(self) -> str:
        """`base` without symbolic links."""
        return os.path.realpath(self.base)  # type: ignore[arg-type]  # a Path: see `_StoreQueryMaker`

    def _fill(self, query: Query, value: object) -> None:
        if isinstance(value, Mapping):  # Hugging Face's image struct
            query.path = value.get("path")
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            query.data = value
        elif isinstance(value, str) and value:
            query.path = value
            self._locate(query, value)
        elif value is None or value == "":
            query.fail(Status.MISSING, "the row names no image")
        else:
            query.fail(Status.UNREADABLE, f"the row's image is a {type(value).__name__}, not a path or bytes")

    def _locate(self, query: Query, path: str) -> None:
        if "://" in path:
            local = self._local_path(query, path)
            if local is None:
                return
            path = local
        # Not normalised: with symbolic links, "a/../b" need not be "b".
        location = os.path.join(self.base, path)  # type: ignore[arg-type]  # noqa: PTH118 - Path would be slow here
        if self.confine and not Path(os.path.realpath(location)).is_relative_to(self.folder):
            query.fail(Status.UNREADABLE, f"the path leaves --root {self.base}")
            return
        query.location = location

    def _local_path(self, query: Query, uri: str) -> str | None:
        """The path that a `file://` URI names. None for another URI: what becomes of its query is settled then."""
        scheme = scheme_of(uri)
        if scheme == "file":
            return unquote(urlsplit(uri).path)
        if scheme in WEB_SCHEMES and not self.allow_http:
            query.fail(Status.UNREADABLE, f"{scheme}:// images are fetched only with --allow-http")
        elif scheme not in WEB_SCHEMES and not is_stored(uri):
            query.fail(
                Status.UNREADABLE, f"{scheme}:// is not supported; use local files, s3://, gs://, az:// or http(s)://"
            )
        elif self.confine and not self._within(scheme, uri):
            query.fail(Status.UNREADABLE, f"the path leaves --root {self.base}")
        else:
            query.uri = uri if scheme in WEB_SCHEMES else str(StorePath.parse(uri))
        return None

    def _within(self, scheme: str, uri: str) -> bool:
        """Whether a URI is inside `base`."""
        return False


class _StoreQueryMaker(QueryMaker):
    """Relative paths start from a prefix in an object store. Absolute ones are this host's."""

    @cached_property
    def folder(self) -> str:
        return str(self.base)

    def _locate(self, query: Query, path: str) -> None:
        assert isinstance(self.base, StorePath)
        if "://" in path:
            local = self._local_path(query, path)
            if local is None:
                return
            path = local
        if path.startswith("/"):
            if self.confine:
                query.fail(Status.UNREADABLE, f"the path leaves --root {self.base}")
            else:
                query.location = path
            return
        found = self.base.joined(path)
        if self.confine and not self.base.contains(found):
            query.fail(Status.UNREADABLE, f"the path leaves --root {self.base}")
        else:
            query.uri = str(found)

    def _within(self, scheme: str, uri: str) -> bool:
        assert isinstance(self.base, StorePath)
        return scheme not in WEB_SCHEMES and self.base.contains(StorePath.parse(uri))


def as_text(value: Any) -> str | None:
    """An identifier as text; JSON and CSV have no column types to keep."""
    return None if value is None else str(value)
