"""The parts of a run: one Parquet file per chunk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import OutputError, PscrError, one_line
from ..stores.uri import Place
from .folder import Folder
from .open import open_folder

BATCH_ROWS = 2**16

_PART = re.compile(r"part-(\d{6,})\.parquet")


def is_part(name: str) -> bool:
    """Tell whether a file's name is a part's."""
    return _PART.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts in an output folder. Several processes may write different ones at once. Picklable.

    Args:
        folder: the output folder, on a file system or in an object store.
    """

    folder: Place
    _files: Folder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_files", open_folder(self.folder))

    def path(self, index: int) -> Place:
        """Return where the part of chunk `index` is, or will be."""
        return self.folder / _name(index)

    def indices(self) -> list[int]:
        """List the indices of the chunks that are done, in order."""
        return sorted(int(match[1]) for name in self._files.names() if (match := _PART.fullmatch(name)))

    def write(self, index: int, table: pa.Table) -> int:
        """Commit the rows of a chunk: once the part is there, it is whole and durable.

        Returns:
            The part's bytes.

        Raises:
            PscrError: the file system, or the store, refuses.
        """
        size = 0

        def content(file: IO[bytes]) -> None:
            nonlocal size
            pq.write_table(table, file, compression="zstd")
            size = file.tell()

        try:
            # Through open files: Arrow takes only names that are UTF-8.
            self._files.write(_name(index), content)
        except OSError as error:
            raise PscrError(
                f"{self.path(index)}: can't be written ({_reason(error)}); "
                "mend that and give the same command again to go on"
            ) from error
        return size

    def read(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Read the rows of a part.

        Raises:
            OutputError: it can't be read.
        """
        try:
            with self._files.open(_name(index)) as file:
                return pq.read_table(file, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def batches(self, index: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a part, in order, at most `BATCH_ROWS` at a time.

        Raises:
            OutputError: it can't be read.
        """
        try:
            with self._files.open(_name(index)) as file:
                yield from pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def schema(self, index: int) -> pa.Schema:
        """Read the names and types of a part's columns.

        Raises:
            OutputError: it can't be read.
        """
        try:
            with self._files.open(_name(index)) as file:
                return pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def file(self, name: str) -> bytes:
        """Read another file beside the parts, or raise FileNotFoundError."""
        return self._files.read(name)

    def rows(self, index: int) -> int:
        """Return how many rows a part has.

        Raises:
            OutputError: it can't be read.
        """
        try:
            return self._rows(index)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def _rows(self, index: int) -> int:
        with self._files.open(_name(index)) as file:
            return int(pq.read_metadata(file).num_rows)

    def footers(self, indices: Sequence[int]) -> list[tuple[int, int | str]]:
        """Read the parts' footers: return each part's index, and its number of rows, or what is wrong with its content.

        Raises:
            OutputError, StoreError: the file system or the store refuses, which says nothing of a part.
        """
        with ThreadPoolExecutor(self._files.readers) as threads:
            return list(zip(indices, threads.map(self._footer, indices), strict=True))

    def _footer(self, index: int) -> int | str:
        try:
            return self._rows(index)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise self._damaged(index, error) from error
            return one_line(error, 120)  # Arrow's own: the content is no part

    def statuses(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the chunk index and the rows' statuses of each part, in order.

        Raises:
            OutputError: a part can't be read.
        """
        indices = self.indices()
        with ThreadPoolExecutor(self._files.readers) as threads:
            yield from zip(indices, threads.map(self._statuses, indices), strict=True)

    def _statuses(self, index: int) -> list[str]:
        return list(self.read(index, ["status"]).column("status").to_pylist())

    def _damaged(self, index: int, error: Exception) -> OutputError:
        return OutputError(
            f"{self.path(index)}: damaged ({one_line(error, 120)}); remove this file and score again to go on"
        )


def _name(index: int) -> str:
    return f"part-{index:06d}.parquet"


def _reason(error: OSError) -> str:
    """Return the system's own words for an error, without pyarrow's around them."""
    return os.strerror(error.errno) if error.errno else str(error)
