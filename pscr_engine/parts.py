"""The parts of a run: one Parquet file per chunk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .atomic import atomic_file
from .errors import OutputError, PscrError, one_line

BATCH_ROWS = 2**16

_PART = re.compile(r"part-(\d{6,})\.parquet")


def is_part(name: str) -> bool:
    """Whether a file's name is a part's."""
    return _PART.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts in an output folder. Several processes may write different ones at once.

    Args:
        folder: the output folder.
    """

    folder: Path

    def path(self, index: int) -> Path:
        """Where the part of chunk `index` is, or will be."""
        return self.folder / f"part-{index:06d}.parquet"

    def indices(self) -> list[int]:
        """The chunks that are done, in order."""
        return sorted(int(match[1]) for name in os.listdir(self.folder) if (match := _PART.fullmatch(name)))

    def write(self, index: int, table: pa.Table) -> None:
        """Commit the rows of a chunk: once the part is there, it is whole and durable.

        Raises:
            PscrError: the file system refuses.
        """
        try:
            # Through open files: Arrow takes only names that are UTF-8.
            with atomic_file(self.path(index)) as temporary, temporary.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
        except OSError as error:
            raise PscrError(
                f"{self.path(index)}: can't be written ({_reason(error)}); "
                "mend that and give the same command again to go on"
            ) from error

    def read(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """The rows of a part.

        Raises:
            OutputError: it can't be read.
        """
        try:
            with self.path(index).open("rb") as file:
                return pq.read_table(file, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def batches(self, index: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a part, in order, at most `BATCH_ROWS` at a time.

        Raises:
            OutputError: it can't be read.
        """
        try:
            with self.path(index).open("rb") as file:
                yield from pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def schema(self, index: int) -> pa.Schema:
        """The columns of a part.

        Raises:
            OutputError: it can't be read.
        """
        try:
            with self.path(index).open("rb") as file:
                return pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def rows(self, index: int) -> int:
        """How many rows a part has.

        Raises:
            OutputError: it can't be read.
        """
        try:
            with self.path(index).open("rb") as file:
                return int(pq.read_metadata(file).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(index, error) from error

    def statuses(self) -> Iterator[tuple[int, list[str]]]:
        """Chunk index and the statuses of its rows, of each part.

        Raises:
            OutputError: a part can't be read.
        """
        for index in self.indices():
            yield index, self.read(index, ["status"]).column("status").to_pylist()

    def _damaged(self, index: int, error: Exception) -> OutputError:
        return OutputError(
            f"{self.path(index)}: damaged ({one_line(error, 120)}); remove this file and score again to go on"
        )


def _reason(error: OSError) -> str:
    """The system's own words; pyarrow wraps them in its own."""
    return os.strerror(error.errno) if error.errno else str(error)
