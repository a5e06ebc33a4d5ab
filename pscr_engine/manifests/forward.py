"""Readers of what can only be read from its beginning: text files, tar shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..records import Query
from .base import too_short

T = TypeVar("T")


class ForwardReader(Generic[T]):
    """A reader of ranges of what can only be read from its beginning.

    Args:
        records: returns an iterator over all records, from the first on.
        make: turns a row's number and its record into a query. Not called for rows that are passed over.
    """

    def __init__(self, records: Callable[[], Iterator[T]], make: Callable[[int, T], Query]) -> None:
        self._open, self._make = records, make
        self._records, self._next = records(), 0

    def read(self, rows: range) -> Iterator[Query]:
        """Yield the queries of those `rows` that exist. A range before the last one starts from the beginning again."""
        if rows.start < self._next:
            self._records, self._next = self._open(), 0
        for _ in islice(self._records, rows.start - self._next):
            self._next += 1
        for record in islice(self._records, len(rows)):
            self._next += 1
            yield self._make(self._next - 1, record)


class ForwardColumns(Generic[T]):
    """A reader of columns of what can only be read from its beginning.

    Args:
        schema: names and types of the columns.
        records: all records, from the first on.
        to_table: turns some records into a table of these columns.
        path: the manifest's, for messages.
    """

    def __init__(
        self, schema: pa.Schema, records: Iterator[T], to_table: Callable[[list[T]], pa.Table], path: object
    ) -> None:
        self.schema, self._records, self._to_table, self._path = schema, records, to_table, path
        self._next = 0

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Read the given rows, which must ascend, and come after those of earlier calls."""
        picked = []
        for row in rows.tolist():
            assert row >= self._next
            record = next(islice(self._records, row - self._next, None), None)
            if record is None:
                raise too_short(self._path, row)
            picked.append(record)
            self._next = row + 1
        return self._to_table(picked)
