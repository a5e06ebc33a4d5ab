"""Parquet manifests: one file, or a directory of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import ManifestError
from ...records import Query
from .base import ManifestOptions, QueryMaker, choose_columns


class ParquetManifest:
    """Rows of Parquet files, read by row group, only the columns that are needed.

    The image column holds paths (string), encoded images (binary) or Hugging Face's struct
    {bytes, path}.
    """

    def __init__(self, path: Path, files: Sequence[Path], options: ManifestOptions) -> None:
        self._files = list(files)
        schema, self._counts, digest = None, [], hashlib.sha256()
        for file in self._files:
            opened = _open(file)
            # The footer holds the schema and the place, size and statistics of every column chunk:
            # it names the content without a read of it, which may be terabytes of images.
            digest.update(f"{file.relative_to(path.parent)}\0{file.stat().st_size}\0".encode())
            digest.update(_footer(file))
            self._counts.append(opened.metadata.num_rows)
            if schema is None:
                schema = opened.schema_arrow
            elif not opened.schema_arrow.equals(schema):
                raise ManifestError(f"{file}: its columns differ from those of {self._files[0]}")
            opened.close()
        assert schema is not None  # callers give at least one file
        self._image, self._id = choose_columns(path, schema.names, options)
        self._check_image_type(path, schema.field(self._image).type)
        self._maker = QueryMaker.for_folder(path if path.is_dir() else path.parent, options)
        self.id_type: pa.DataType | None = schema.field(self._id).type if self._id else None
        self.num_rows: int | None = sum(self._counts)
        self.fingerprint = f"parquet:{digest.hexdigest()}"

    def rows(self, start: int = 0) -> Iterator[Query]:
        """See `Manifest.rows`. Row groups before `start` are not read."""
        first = 0
        for file, count in zip(self._files, self._counts, strict=True):
            if first + count > start:
                yield from self._rows_of(file, first, start)
            first += count

    def _rows_of(self, file: Path, first: int, start: int) -> Iterator[Query]:
        opened = _open(file)
        try:
            groups: list[int] = []
            row = first
            for index in range(opened.metadata.num_row_groups):
                size = opened.metadata.row_group(index).num_rows
                if row + size <= start and not groups:
                    row += size
                else:
                    groups.append(index)
            columns = [self._image] + ([self._id] if self._id else [])
            # Small batches: the image column may hold the encoded images themselves.
            for batch in opened.iter_batches(batch_size=256, row_groups=groups, columns=columns):
                images = batch.column(self._image).to_pylist()
                ids = batch.column(self._id).to_pylist() if self._id else [None] * len(images)
                for image, id_ in zip(images, ids, strict=True):
                    if row >= start:
                        yield self._maker.make(row, image, id_)
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise ManifestError(f"{file}: can't be read ({_line(error)})") from error
        finally:
            opened.close()

    @staticmethod
    def _check_image_type(path: Path, type_: Any) -> None:
        value = type_.value_type if pa.types.is_dictionary(type_) else type_
        if pa.types.is_struct(value):
            names = {field.name for field in value}
            if not names & {"bytes", "path"}:
                raise ManifestError(f"{path}: the image column is a struct without 'bytes' or 'path'")
        elif not any(
            check(value)
            for check in (
                pa.types.is_string,
                pa.types.is_large_string,
                pa.types.is_binary,
                pa.types.is_large_binary,
                pa.types.is_string_view,
                pa.types.is_binary_view,
                pa.types.is_null,
            )
        ):
            raise ManifestError(
                f"{path}: the image column holds {value}, not paths or bytes; choose another with --path-column"
            )


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{file}: not a Parquet file that can be read ({_line(error)})") from error


def _footer(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(-8, 2)
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(-8 - length, 2)
        return stream.read(length)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
