"""Rows grouped by a column of the manifest: one small integer per row."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import ManifestError, PscrError
from ..manifests import Manifest
from .run_reader import RunReader

NO_VALUE = "(none)"
"""The label of rows without a value."""


class Groups:
    """The groups of a run's rows.

    Each row's group is an integer in a temporary file, 4 bytes per row, so that a manifest that can only be read from
    its beginning is read once, and memory grows with the number of groups alone.

    Args:
        file: int32, one per row of the parts, in their order.
        labels: the groups' names, in the order in which they first appear.
        sizes: how many rows each group has.
    """

    def __init__(self, file: IO[bytes], labels: list[str], sizes: NDArray[np.int64]) -> None:
        self._file, self.labels, self.sizes = file, labels, sizes
        weakref.finalize(self, file.close)

    def __len__(self) -> int:
        return len(self.labels)

    def beside(self, batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int32]]]:
        """Yield batches of all rows, each with its rows' groups, int32 [rows]. One iteration at a time."""
        self._file.seek(0)
        for batch in batches:
            yield batch, np.frombuffer(self._file.read(4 * batch.num_rows), np.int32)


def with_groups(
    run: RunReader, groups: Groups | None, *columns: str
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int32] | None]]:
    """Return batches of some columns of all rows, each with its rows' groups, or None without `groups`."""
    batches = run.batches(*columns)
    return ((batch, None) for batch in batches) if groups is None else groups.beside(batches)


def read_groups(run: RunReader, manifest: Manifest, column: str, most: int) -> Groups:
    """Group a run's rows by a column of its manifest.

    Args:
        run: the run.
        manifest: its manifest.
        column: the column's name; it must be there.
        most: how many different values there may be.

    Raises:
        ManifestError: the column doesn't hold plain values, or too many different ones.
    """
    reader = manifest.columns([column])
    codes: dict[bytes | None, int] = {}
    sizes = np.zeros(0, np.int64)
    with ExitStack() as opened:
        file = opened.enter_context(tempfile.TemporaryFile())
        for batch in run.batches("row"):
            encoded = _bytes_of(reader.take(batch.column("row").to_numpy()).column(0), column).dictionary_encode()
            values = [*encoded.dictionary.to_pylist(), None]
            within = encoded.indices.fill_null(len(values) - 1).to_numpy()
            number = np.array([*(codes.setdefault(value, len(codes)) for value in values[:-1]), -1], np.int32)
            if encoded.null_count:
                number[-1] = codes.setdefault(None, len(codes))
            if len(codes) > most:
                raise ManifestError(f"column {column!r} has more than {most:,} different values; choose one with fewer")
            of_rows = number[within]
            _write(file, of_rows)
            counts = np.bincount(of_rows, minlength=len(codes))
            counts[: len(sizes)] += sizes
            sizes = counts
        opened.pop_all()  # from here on it lives as long as the groups
    labels = [NO_VALUE if value is None else value.decode("utf-8", "replace") for value in codes]
    return Groups(file, labels, sizes)


def _write(file: IO[bytes], groups: NDArray[np.int32]) -> None:
    try:
        file.write(groups.tobytes())
        file.flush()
    except OSError as error:
        folder, reason = tempfile.gettempdir(), error.strerror
        raise PscrError(f"{folder}: no room for a temporary file ({reason}); free some, or set TMPDIR") from error


def _bytes_of(column: pa.ChunkedArray, name: str) -> pa.Array:
    """Return the values' text as bytes: a column of text need not be UTF-8."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            array = pc.cast(array, pa.large_string())
        return array.cast(pa.large_binary(), safe=False)
    except pa.ArrowException as error:
        raise ManifestError(f"column {name!r} holds {array.type}; groups need text, numbers or dates") from error
