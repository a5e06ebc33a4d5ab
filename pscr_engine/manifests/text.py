"""CSV and JSON Lines manifests."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from ..errors import ManifestError
from ..records import Query, Status
from .base import Manifest, ManifestFile, ManifestOptions
from .forward import ForwardColumns, ForwardReader
from .queries import QueryMaker, choose_columns
from .unicode import as_text, text_array

# File names need not be UTF-8: this keeps such bytes on their way to open().
_ERRORS = "surrogateescape"
# In characters: a longer field is an unclosed quote, not a long prompt.
_MAX_FIELD = 16 * 2**20
# More different keys than this are data, not names.
_MAX_COLUMNS = 1000


class CsvManifest(Manifest):
    """A CSV or TSV file with a header. Identifiers stay text: "007" is "007"."""

    kind = "csv"

    def __init__(self, path: ManifestFile, delimiter: str, options: ManifestOptions) -> None:
        self._path, self._delimiter = path, delimiter
        self._watch([path])
        header = next(self._records(), [])
        if not header:
            raise ManifestError(f"{path}: empty; its first line must name the columns")
        self.column_names = header
        image, id_ = choose_columns(path, header, options)
        self._image, self._id = header.index(image), header.index(id_) if id_ else None
        self._maker = QueryMaker.for_folder(path.parent, options)
        self.folder = self._maker.folder
        self.id_type: pa.DataType | None = pa.string() if id_ else None
        digest, lines = _digest_and_lines(path)
        self.fingerprint = f"{self.kind}:{digest}"
        self.num_rows: int | None = lines - 1

    def reader(self) -> ForwardReader[list[str]]:
        """Return a reader with an open file of its own."""
        return ForwardReader(lambda: islice(self._records(), 1, None), self._query)

    def columns(self, names: Sequence[str]) -> ForwardColumns[list[str]]:
        """Return a reader of some columns, all of them text, as written: "007" is "007"."""
        positions = [list(self.column_names).index(name) for name in names]
        schema = pa.schema([(name, pa.string()) for name in names])

        def to_table(records: list[list[str]]) -> pa.Table:
            cells = ([record[at] if at < len(record) else None for record in records] for at in positions)
            return pa.table([text_array(column) for column in cells], schema=schema)

        return ForwardColumns(schema, islice(self._records(), 1, None), to_table, self._path)

    def _query(self, row: int, record: list[str]) -> Query:
        image = record[self._image] if self._image < len(record) else None
        id_ = record[self._id] if self._id is not None and self._id < len(record) else None
        return self._maker.make(row, image, id_)

    def _records(self) -> Iterator[list[str]]:
        with self._path.open(encoding="utf-8-sig", errors=_ERRORS, newline="") as file:
            csv.field_size_limit(_MAX_FIELD)
            reader = csv.reader(file, delimiter=self._delimiter)
            try:
                yield from (record for record in reader if record)  # as csv.DictReader: blank lines are no rows
            except csv.Error as error:
                raise ManifestError(f"{self._path}: line {reader.line_num}: {error}") from error


class JsonLinesManifest(Manifest):
    """A file with one JSON object per line. Identifiers become text, since lines need not agree on a type.

    A line that is not a JSON object is a row with status `unreadable`: one bad line out of a
    million is no reason to score nothing.
    """

    kind = "jsonl"

    def __init__(self, path: ManifestFile, options: ManifestOptions) -> None:
        self._path = path
        self._watch([path])
        first = next((value for _, text in self._lines() if isinstance(value := _json(text), dict)), None)
        if first is None:
            raise ManifestError(f"{path}: no line of it is a JSON object")
        self._image, self._id = choose_columns(path, list(first), options)
        self._maker = QueryMaker.for_folder(path.parent, options)
        self.folder = self._maker.folder
        self.id_type: pa.DataType | None = pa.string() if self._id else None
        digest, lines = _digest_and_lines(path)
        self.num_rows: int | None = lines
        self.fingerprint = f"{self.kind}:{digest}"

    def reader(self) -> ForwardReader[tuple[int, str]]:
        """Return a reader with an open file of its own."""
        return ForwardReader(self._lines, self._query)

    @cached_property
    def _types(self) -> dict[str, pa.DataType]:
        """Find the columns, in the order in which they first appear, with types that can hold every line's value."""
        kinds: dict[str, set[type]] = {}
        for _, text in self._lines():
            if isinstance(value := _json(text), dict):
                for name, cell in value.items():
                    kinds.setdefault(name, set()).add(_kind(cell))
                if len(kinds) > _MAX_COLUMNS:
                    raise ManifestError(f"{self._path}: its lines have more than {_MAX_COLUMNS} different keys")
        return {name: _column_type(types - {type(None)}) for name, types in kinds.items()}

    @property
    def column_names(self) -> Sequence[str]:  # type: ignore[override]  # costs a pass over the file, so only when asked for
        """Return the keys of all lines."""
        return list(self._types)

    def columns(self, names: Sequence[str]) -> ForwardColumns[tuple[int, str]]:
        """Return a reader of some columns. Values of several kinds, objects and lists become text: their JSON."""
        schema = pa.schema([(name, self._types[name]) for name in names])

        def to_table(lines: list[tuple[int, str]]) -> pa.Table:
            values = [value if isinstance(value := _json(text), dict) else {} for _, text in lines]
            return pa.table([_json_column([value.get(at.name) for value in values], at.type) for at in schema], schema)

        return ForwardColumns(schema, self._lines(), to_table, self._path)

    def _query(self, row: int, numbered: tuple[int, str]) -> Query:
        line, text = numbered
        value = _json(text)
        if isinstance(value, dict):
            return self._maker.make(row, value.get(self._image), as_text(value.get(self._id)))
        query = Query(row)
        query.fail(Status.UNREADABLE, f"line {line} of the manifest is not a JSON object")
        return query

    def _lines(self) -> Iterator[tuple[int, str]]:
        with self._path.open(encoding="utf-8-sig", errors=_ERRORS) as file:
            yield from ((line, text) for line, text in enumerate(file, 1) if text.strip())


def _json(text: str) -> object:
    """Parse JSON; return None if the text isn't JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _kind(value: object) -> type:
    """Return the value's type; for an integer that 64 bits can't hold, dict, so that its column becomes text."""
    return dict if type(value) is int and not -(2**63) <= value < 2**63 else type(value)


def _column_type(kinds: set[type]) -> pa.DataType:
    if kinds == {bool}:
        return pa.bool_()
    if kinds and kinds <= {int, float}:
        return pa.int64() if kinds == {int} else pa.float64()
    return pa.string()


def _json_column(values: list[Any], type_: pa.DataType) -> pa.Array:
    if type_ != pa.string():
        return pa.array(values, type_)
    return text_array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])


def _digest_and_lines(path: ManifestFile) -> tuple[str, int]:
    """Return the SHA-256 and the number of lines of a file, in one pass."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            lines += block.count(b"\n")
            last = block[-1:]
    return digest.hexdigest(), lines + (last != b"\n")
