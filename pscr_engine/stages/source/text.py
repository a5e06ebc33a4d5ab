"""CSV and JSON Lines manifests."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from ...errors import ManifestError
from ...records import Query, Status
from .base import ForwardReader, Manifest, ManifestFile, ManifestOptions, QueryMaker, as_text, choose_columns

# File names need not be UTF-8: such bytes survive the way to open() this way.
_ERRORS = "surrogateescape"
# A longer field is an unclosed quote, not a prompt.
_MAX_FIELD = 16 * 2**20


class CsvManifest(Manifest):
    """A CSV or TSV file with a header. Identifiers stay text: "007" is "007"."""

    def __init__(self, path: ManifestFile, delimiter: str, options: ManifestOptions) -> None:
        self._path, self._delimiter = path, delimiter
        self._watch([path])
        header = next(self._records(), [])
        if not header:
            raise ManifestError(f"{path}: empty; its first line must name the columns")
        image, id_ = choose_columns(path, header, options)
        self._image, self._id = header.index(image), header.index(id_) if id_ else None
        self._maker = QueryMaker.for_folder(path.parent, options)
        self.folder = self._maker.folder
        self.id_type: pa.DataType | None = pa.string() if id_ else None
        digest, lines = _digest_and_lines(path)
        self.fingerprint = f"csv:{digest}"
        self.num_rows: int | None = lines - 1

    def reader(self) -> ForwardReader[list[str]]:
        """See `Manifest.reader`."""
        return ForwardReader(lambda: islice(self._records(), 1, None), self._query)

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
    """One JSON object per line. Identifiers become text, since lines need not agree on a type.

    A line that is not a JSON object is a row with status `unreadable`: one bad line out of a
    million is no reason to score nothing.
    """

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
        self.fingerprint = f"jsonl:{digest}"

    def reader(self) -> ForwardReader[tuple[int, str]]:
        """See `Manifest.reader`."""
        return ForwardReader(self._lines, self._query)

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
    """The value, or None if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _digest_and_lines(path: ManifestFile) -> tuple[str, int]:
    """SHA-256 and number of lines of a file, in one pass."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            lines += block.count(b"\n")
            last = block[-1:]
    return digest.hexdigest(), lines + (last != b"\n")
