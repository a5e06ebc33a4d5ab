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
UTF8_ERRORS = "surrogateescape"
# In characters: a longer field is an unclosed quote, not a long prompt.
_MAX_FIELD = 16 * 2**20
# More different keys than this are data, not names.
_MAX_COLUMNS = 1000
# JSON objects whose keys are looked at before the columns are chosen.
_LOOK_AHEAD = 1000


class CsvManifest(Manifest):
    """A CSV or TSV file with a header. Identifiers stay text: "007" is "007".

    Blank lines are no rows, as for other readers. A record with more or fewer fields than the header is a row with
    status `unreadable`; a quote that isn't closed is an error, since rows would be missing.
    """

    kind = "csv"

    def __init__(self, path: ManifestFile, delimiter: str, options: ManifestOptions) -> None:
        self._path, self._delimiter = path, delimiter
        self._watch([path])
        require_utf8(path)
        _, header = next(self._records(), (0, []))
        if not header:
            raise ManifestError(f"{path}: empty; its first line must name the columns")
        self.column_names = header
        image, id_ = choose_columns(path, header, options)
        self._image, self._id = header.index(image), header.index(id_) if id_ else None
        self._maker = QueryMaker.for_folder(path.parent, options)
        self.folder = self._maker.folder
        self.id_type: pa.DataType | None = pa.string() if id_ else None
        digest, feeds, lone_returns, last = digest_and_line_ends(path)
        self.fingerprint = f"{self.kind}:{digest}"
        self.num_rows: int | None = feeds + lone_returns + (last not in b"\r\n") - 1

    def reader(self) -> ForwardReader[_CsvRecord]:
        """Return a reader with an open file of its own."""
        return ForwardReader(lambda: islice(self._records(), 1, None), self._query)

    def columns(self, names: Sequence[str]) -> ForwardColumns[_CsvRecord]:
        """Return a reader of some columns, all of them text, as written: "007" is "007"."""
        positions = [list(self.column_names).index(name) for name in names]
        schema = pa.schema([(name, pa.string()) for name in names])

        def to_table(records: list[_CsvRecord]) -> pa.Table:
            cells = ([fields[at] if at < len(fields) else None for _, fields in records] for at in positions)
            return pa.table([text_array(column) for column in cells], schema=schema)

        return ForwardColumns(schema, islice(self._records(), 1, None), to_table, self._path)

    def _query(self, row: int, record: _CsvRecord) -> Query:
        line, fields = record
        id_ = fields[self._id] if self._id is not None and self._id < len(fields) else None
        if len(fields) == len(self.column_names):
            return self._maker.make(row, fields[self._image], id_)
        query = Query(row, id=id_)
        count, expected = len(fields), len(self.column_names)
        query.fail(Status.UNREADABLE, f"line {line} of the manifest has {count} fields, its header has {expected}")
        return query

    def _records(self) -> Iterator[_CsvRecord]:
        with self._path.open(encoding="utf-8-sig", errors=UTF8_ERRORS, newline="") as file:
            csv.field_size_limit(_MAX_FIELD)
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            line = 1
            try:
                for fields in reader:
                    if fields:  # as csv.DictReader and pandas: blank lines are no rows
                        yield line, fields
                    line = reader.line_num + 1
            except csv.Error as error:
                raise ManifestError(f"{self._path}: line {line}: {_quote_trouble(error)}") from error


_CsvRecord = tuple[int, list[str]]
"""The line on which a record begins, and its fields."""


def _quote_trouble(error: csv.Error) -> str:
    if "unexpected end of data" in str(error) or "field larger" in str(error):
        return "a quote opens in the record that begins here and isn't closed; double quotes that are meant as such"
    return f"{error} in the record that begins here; double quotes that are meant as such"


class JsonLinesManifest(Manifest):
    """A file with one JSON object per line. Identifiers become text, since lines need not agree on a type.

    A line that is not a JSON object is a row with status `unreadable`: one bad line out of a
    million is no reason to score nothing.
    """

    kind = "jsonl"

    def __init__(self, path: ManifestFile, options: ManifestOptions) -> None:
        self._path = path
        self._watch([path])
        require_utf8(path)
        first = list(
            islice((value for _, text in self._lines() if isinstance(value := _json(text), dict)), _LOOK_AHEAD)
        )
        if not first:
            raise ManifestError(f"{path}: no line of it is a JSON object")
        known = dict.fromkeys(name for value in first for name in value)
        for name in (options.path_column, options.id_column or "id"):
            if name is not None and name not in known and self._has_key(name):
                known[name] = None
        self._image, self._id = choose_columns(path, list(known), options)
        self._maker = QueryMaker.for_folder(path.parent, options)
        self.folder = self._maker.folder
        self.id_type: pa.DataType | None = pa.string() if self._id else None
        digest, feeds, _, last = digest_and_line_ends(path)
        self.num_rows: int | None = feeds + (last != b"\n")
        self.fingerprint = f"{self.kind}:{digest}"

    def _has_key(self, name: str) -> bool:
        """Tell whether a line beyond the first ones has a key; only lines that hold its text are parsed."""
        lines = (text for _, text in self._lines() if f'"{name}"' in text or "\\" in text)
        return any(isinstance(value := _json(text), dict) and name in value for text in lines)

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
        # A lone carriage return is white space within a line, as JSON has it.
        with self._path.open(encoding="utf-8-sig", errors=UTF8_ERRORS, newline="\n") as file:
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


def digest_and_line_ends(path: ManifestFile) -> tuple[str, int, int, bytes]:
    """Return a file's SHA-256, how many line feeds and lone carriage returns it has, and its last byte."""
    digest, feeds, returns, last = hashlib.sha256(), 0, 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            feeds += block.count(b"\n")
            returns += block.count(b"\r") - block.count(b"\r\n") - (last == b"\r" and block[:1] == b"\n")
            last = block[-1:]
    return digest.hexdigest(), feeds, returns, last


# What a file may begin with that is no UTF-8 text, and what it is then.
_NO_TEXT = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"PK\x03\x04": "a zip archive (a spreadsheet, perhaps)",
    b"PAR1": "a Parquet file; name it .parquet",
}


def require_utf8(path: ManifestFile) -> None:
    """Raise ManifestError if a file is no text in UTF-8, as far as its beginning shows."""
    with path.open("rb") as file:
        begin = file.read(1024)
    kind = next((kind for mark, kind in _NO_TEXT.items() if begin.startswith(mark)), None)
    if kind is None and b"\0" in begin:
        kind = "no text (it holds null bytes), or UTF-16"
    if kind is not None:
        raise ManifestError(f"{path}: is {kind}; text in UTF-8 is read")
