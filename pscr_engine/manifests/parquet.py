"""Parquet manifests: one file, or several with the same image and identifier columns."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import ManifestError, one_line, option
from ..records import Query
from ..stores.uri import Place, StorePath
from .arrow_types import exact_values, plain, storable, stored, without_views
from .base import Manifest, ManifestFile, ManifestOptions, state_of, too_short
from .parquet_columns import FileColumns, fitted, folder_values, is_bytes, is_text, unpacked
from .queries import QueryMaker, choose_columns

_READ_BYTES = 2**20
# Rows that are in memory at once, where the image column holds the encoded images themselves.
_BATCH_ROWS, _BATCH_BYTES = 256, 32 * 2**20
# The same, where columns are copied as they are.
_TABLE_ROWS = 8192


class ParquetManifest(Manifest):
    """Rows of Parquet files, read by row group, only the columns that are needed.

    The image column holds paths (string), encoded images (binary) or Hugging Face's struct
    {bytes, path}. In a folder of files, this column and the identifiers must fit; the other columns need not be in
    every file, and folders named NAME=VALUE are one more column each, of text.
    """

    kind = "parquet"
    may_hold_images = True

    def __init__(
        self,
        path: Place,
        files: Sequence[ManifestFile],
        folder: Place,
        options: ManifestOptions,
        since: Place | None = None,
    ) -> None:
        """Open the files.

        Args:
            path: what the user named.
            files: in the order of their rows.
            folder: what relative paths in the rows start from.
            options: how to read them.
            since: the folder from which on names of folders may be columns; None for `path`.
        """
        self._watch(list(files))
        self._groups, self._file_columns = _Groups([], [], [0]), FileColumns()
        for file in self._files:
            opened = _open(file)
            for index in range(opened.metadata.num_row_groups):
                self._groups.add(file, index, opened.metadata.row_group(index).num_rows)
            self._file_columns.add(file, opened.schema_arrow)
            opened.close()
        self._path = path
        self._image, self._id = self._choose_columns(options)
        embedded = self._check_images()
        own = self._file_columns.names
        self._of_folders = {
            name: values for name, values in _of_folders(self._files, since or path).items() if name not in own
        }
        self.column_names = [*own, *self._of_folders]
        self._maker = QueryMaker.for_folder(folder, options)
        self.folder = self._maker.folder
        self.id_type: pa.DataType | None = storable(self._file_columns.identifier_type(self._id)) if self._id else None
        self.num_rows: int | None = self._groups.starts[-1]
        self.fingerprint = f"{self.kind}:{self._digest(path, embedded=embedded)}"

    def reader(self) -> _ParquetReader:
        """Return a reader with open files of its own."""
        return _ParquetReader(self._groups, self._image, self._id, self._maker)

    def columns(self, names: Sequence[str]) -> _ParquetColumns:
        """Return a reader of some columns, with the types that the files have, but no views.

        Raises:
            ManifestError: the files have a column with types that nothing can hold all of.
        """
        of_folders = {name: self._of_folders[name] for name in names if name in self._of_folders}
        fields = [
            pa.field(name, pa.string()) if name in of_folders else self._file_columns.field(name) for name in names
        ]
        schema = pa.schema([field.with_type(without_views(field.type)) for field in fields])
        return _ParquetColumns(self._groups, schema, of_folders, self._path)

    def _choose_columns(self, options: ManifestOptions) -> tuple[str, str | None]:
        """Choose the image and the identifier column, the same ones in all files."""
        several = len(self._files) > 1
        (first, image, id_), *others = (
            (file, *choose_columns(file if several else self._path, schema.names, options))
            for file, schema in self._file_columns
        )
        for file, its_image, its_id in others:
            if its_image != image:
                raise ManifestError(
                    f"{file}: its images are in column {its_image!r}, those of {first} in {image!r}; "
                    f"name one that all files have with {option('--path-column')}"
                )
            if its_id != id_:
                without, having = (file, first) if its_id is None else (first, file)
                raise ManifestError(
                    f"{without}: no column 'id', which {having} has; add it, or name one that all files have with "
                    f"{option('--id-column')}"
                )
        return image, id_

    def _check_images(self) -> bool:
        """Tell whether the image column holds encoded images; raise ManifestError if the files don't agree on that."""
        image, embedded = self._image, None
        for file, schema in self._file_columns:
            type_ = schema.field(image).type
            holds = self._check_image_type(file if len(self._files) > 1 else self._path, type_)
            if pa.types.is_null(unpacked(type_)):
                continue
            if embedded not in (None, holds):
                raise ManifestError(
                    f"{file}: its column {image!r} holds {'images' if holds else 'paths'}, that of {self._files[0]} "
                    f"{'paths' if holds else 'images'}; store it as one type in all files"
                )
            embedded = holds
        return bool(embedded)

    @staticmethod
    def _check_image_type(path: object, type_: Any) -> bool:
        """Tell whether the column holds encoded images, not paths.

        Raises:
            ManifestError: it holds neither.
        """
        value = type_.value_type if pa.types.is_dictionary(type_) else type_
        if pa.types.is_struct(value):
            names = {field.name for field in value}
            if not names & {"bytes", "path"}:
                raise ManifestError(f"{path}: the image column is a struct without 'bytes' or 'path'")
            for field in value:
                fits = is_text(field.type) or is_bytes(field.type) or pa.types.is_null(field.type)
                if field.name in ("bytes", "path") and not fits:
                    raise ManifestError(
                        f"{path}: {field.name!r} in the image column holds {field.type}, not "
                        f"{'bytes' if field.name == 'bytes' else 'paths'}; choose another column with "
                        f"{option('--path-column')}"
                    )
            return True
        if is_bytes(value):
            return True
        if not (is_text(value) or pa.types.is_null(value)):
            raise ManifestError(
                f"{path}: the image column holds {value}, not paths or bytes; choose another with "
                f"{option('--path-column')}"
            )
        return False

    def _digest(self, path: Place, *, embedded: bool) -> str:
        """Return the SHA-256 of the columns' content, or of the footers if the column holds the images themselves.

        A footer has the offset, compressed size and statistics of every column chunk: it differs for other
        images, and what may be terabytes need not be read. Of objects, sizes and ETags are taken.
        """
        digest = hashlib.sha256()
        columns = [self._image] + ([self._id] if self._id else [])
        for file in self._files:
            digest.update(f"{_relative(file, path.parent)}\0".encode(errors="surrogateescape"))
            if not isinstance(file, Path):
                digest.update(repr(state_of(file)).encode())
                continue
            if embedded:
                digest.update(_footer(file))
                continue
            opened = _open(file)
            try:
                for batch in opened.iter_batches(batch_size=8192, columns=columns):
                    for column in _plain_batch(batch, file).columns:
                        digest.update(_content(column))
            except (pa.ArrowException, OSError) as error:
                raise ManifestError(f"{file}: can't be read ({one_line(error, 200)})") from error
            finally:
                opened.close()
        pa.default_memory_pool().release_unused()
        return digest.hexdigest()


class _Groups(NamedTuple):
    """All row groups of all files: file, index in it, and first row; `starts` has one entry more, the end."""

    files: list[ManifestFile]
    indices: list[int]
    starts: list[int]

    def add(self, file: ManifestFile, index: int, rows: int) -> None:
        self.files.append(file)
        self.indices.append(index)
        self.starts.append(self.starts[-1] + rows)


class _RowGroups:
    """A reader of the batches that rows are in. Row groups that nobody asks for are not read.

    Args:
        groups: all row groups.
        columns: what to read of them, where a file has it.
        batch_rows: how many rows to read at once, at most; fewer if they are large.
    """

    def __init__(self, groups: _Groups, columns: Sequence[str], batch_rows: int = _BATCH_ROWS) -> None:
        self.rows = groups.starts[-1]
        self._groups, self._columns, self._batch_rows = groups, list(columns), batch_rows
        self._path: ManifestFile | None = None
        self._file: pq.ParquetFile | None = None
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._first = 0  # number of the batch's first row

    def file_with(self, row: int) -> ManifestFile:
        """Return the file that holds `row`."""
        return self._groups.files[bisect_right(self._groups.starts, row) - 1]

    def batch_with(self, row: int) -> tuple[int, pa.RecordBatch]:
        """Return the number of the first row of the batch that holds `row`, and the batch."""
        group = bisect_right(self._groups.starts, row) - 1
        try:
            if group != self._group or row < self._first:
                self._open_group(group)
            while self._batch is None or row >= self._first + self._batch.num_rows:
                self._first += 0 if self._batch is None else self._batch.num_rows
                self._batch = _plain_batch(next(self._batches), self._path)
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._group = -1
            raise ManifestError(f"{self._path}: can't be read ({one_line(error, 200)})") from error
        return self._first, self._batch

    def _open_group(self, group: int) -> None:
        path = self._groups.files[group]
        if self._file is None or path != self._path:
            if self._file is not None:
                self._file.close()
            self._path, self._file = path, _open(path)
        index = self._groups.indices[group]
        rows = _rows_in_bytes(self._file.metadata.row_group(index), _BATCH_BYTES, self._batch_rows)
        having = set(self._file.schema_arrow.names)
        columns = [name for name in self._columns if name in having]
        self._batches = self._file.iter_batches(rows, row_groups=[index], columns=columns)
        self._group, self._batch, self._first = group, None, self._groups.starts[group]


class _ParquetReader:
    """A reader of ranges of rows as queries."""

    def __init__(self, groups: _Groups, image: str, id_: str | None, maker: QueryMaker) -> None:
        self._groups = _RowGroups(groups, [image, *([id_] if id_ else [])])
        self._image, self._id, self._maker = image, id_, maker

    def read(self, rows: range) -> Iterator[Query]:
        row, end = rows.start, min(rows.stop, self._groups.rows)
        while row < end:
            first, batch = self._groups.batch_with(row)
            part = batch.slice(row - first, end - row)
            images = _values(part.column(self._image))
            ids = self._identifiers(part, row) if self._id else [None] * len(images)
            for image, id_ in zip(images, ids, strict=True):
                yield self._maker.make(row, image, id_)
                row += 1

    def _identifiers(self, part: pa.RecordBatch, row: int) -> list[Any]:
        assert self._id is not None
        column = part.column(self._id)
        try:
            return _identifiers(stored(column))
        except pa.ArrowException as error:
            raise _no_kernel(self._groups.file_with(row), self._id, column.type) from error


class _ParquetColumns:
    """A reader of chosen rows of some columns: null where a file lacks one.

    Args:
        groups: all row groups.
        schema: names and types of the columns.
        of_folders: columns that names of folders give: name → file → its rows' value.
        path: the manifest's, for messages.
    """

    def __init__(
        self, groups: _Groups, schema: pa.Schema, of_folders: dict[str, dict[ManifestFile, str | None]], path: Place
    ) -> None:
        self.schema, self._of_folders, self._path = schema, of_folders, path
        self._groups = _RowGroups(groups, [name for name in schema.names if name not in of_folders], _TABLE_ROWS)

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        if len(rows) and rows[-1] >= self._groups.rows:
            raise too_short(self._path, int(rows[-1]))
        taken, at = [], 0
        while at < len(rows):
            row = int(rows[at])
            first, batch = self._groups.batch_with(row)
            end = at + int(np.searchsorted(rows[at:], first + batch.num_rows))
            indices, file = pa.array(rows[at:end] - first), self._groups.file_with(row)
            columns = [self._taken(field, batch, indices, file) for field in self.schema]
            taken.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
            at = end
        return pa.Table.from_batches(taken, self.schema)

    def _taken(self, field: pa.Field, batch: pa.RecordBatch, indices: pa.Array, file: ManifestFile) -> pa.Array:
        if field.name in self._of_folders:
            return pa.array([self._of_folders[field.name].get(file)] * len(indices), field.type)
        if field.name not in batch.schema.names:
            return pa.nulls(len(indices), field.type)
        column = batch.column(field.name)
        try:
            taken = column.take(indices)
        except pa.ArrowException as error:
            raise _no_kernel(self._path, field.name, column.type) from error
        return fitted(taken, field.type, field.name, file)


def _rows_in_bytes(group: Any, nbytes: int, most: int) -> int:
    """Return how many rows of a row group, `most` at most, take about `nbytes` bytes."""
    per_row = int(group.total_byte_size) // max(1, int(group.num_rows))
    return max(1, min(most, int(nbytes // max(1, per_row))))


def _plain_batch(batch: pa.RecordBatch, path: object) -> pa.RecordBatch:
    """Return the batch without views, which have no kernels.

    Raises:
        ManifestError: a column's views can't be converted.
    """
    if not batch.num_columns:  # then only the batch itself knows its number of rows
        return batch
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns.append(plain(column))
        except pa.ArrowException as error:
            raise _no_kernel(path, name, column.type) from error
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _no_kernel(path: object, name: str, type_: pa.DataType) -> ManifestError:
    return ManifestError(f"{path}: column {name!r} holds {type_}, which Arrow can't handle; store it as a plainer type")


def _identifiers(column: pa.Array) -> list[Any]:
    """Return Arrow's own scalars, which lose nothing; for text, bytes and integers Python's, which are faster."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        return _values(column)
    if pa.types.is_integer(column.type) or is_bytes(column.type):
        return list(column.to_pylist())
    return [value if value.is_valid else None for value in column]


def _of_folders(files: Sequence[ManifestFile], root: Place) -> dict[str, dict[ManifestFile, str | None]]:
    """Return the columns that the names of folders below `root` give: name → file → its rows' value."""
    columns: dict[str, dict[ManifestFile, str | None]] = {}
    for file in files:
        for name, value in folder_values(_relative(file, root)).items():
            columns.setdefault(name, {})[file] = value
    return columns


def _values(column: pa.Array) -> list[Any]:
    """Return the column's values. Text that is not UTF-8 keeps its bytes, as file names do."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_text(column.type):
        return [
            None if value is None else value.decode("utf-8", "surrogateescape")
            for value in column.cast(pa.large_binary(), safe=False).to_pylist()
        ]
    if pa.types.is_struct(column.type):
        names = [field.name for field in column.type if field.name in ("bytes", "path")]
        fields = [_values(column.field(name)) for name in names]
        present = column.is_valid().to_pylist()
        return [
            dict(zip(names, values, strict=True)) if valid else None
            for valid, *values in zip(present, *fields, strict=True)
        ]
    return list(column.to_pylist())


def _content(column: pa.Array) -> bytes:
    """Return bytes that differ when the column's values do."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not is_text(column.type):
        return repr(exact_values(column)).encode()
    column = column.cast(pa.large_binary(), safe=False)
    lengths = pc.fill_null(pc.binary_length(column), -1).to_numpy(zero_copy_only=False)
    joined = pc.binary_join(
        pa.LargeListArray.from_arrays([0, len(column)], pc.fill_null(column, b"")), pa.scalar(b"", pa.large_binary())
    )
    return bytes(np.ascontiguousarray(lengths, np.int64).tobytes()) + bytes(joined[0].as_py() or b"")


def _open(file: ManifestFile) -> pq.ParquetFile:
    try:
        # Read in steps: else the whole column of a row group would be in memory, images and all.
        return pq.ParquetFile(file if isinstance(file, Path) else file.open("rb"), buffer_size=_READ_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{file}: not a Parquet file that can be read ({one_line(error, 200)})") from error


def _relative(file: ManifestFile, folder: Place) -> str:
    if isinstance(file, Path):
        assert isinstance(folder, Path)
        return str(file.relative_to(folder))
    assert isinstance(folder, StorePath)
    return folder.relative(file.path)


def _footer(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(-8, 2)
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(-8 - length, 2)
        return stream.read(length)
