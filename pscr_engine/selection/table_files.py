"""The files that `select` can write: Parquet, CSV, TSV or JSON Lines, by their names' endings."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..errors import OutputError, option
from ..records import result_of_column

MARK = b"pscr_engine.select"
"""Key in a Parquet file's metadata, by which an earlier selection is known."""


class TableWriter(Protocol):
    """A writer of one table, piece by piece."""

    def write_table(self, table: pa.Table) -> None:
        """Write some rows."""
        ...

    def close(self) -> None:
        """Write what is left to be written."""
        ...


class _JsonLinesWriter:
    """Writes one JSON object per row."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._file = file

    def write_table(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self._file.write(json.dumps(_plain(row), ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        pass


def _plain(value: Any) -> Any:
    """Make of a value what JSON can hold: bytes become Base64, times and decimals text, NaN and infinity null."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _parquet(file: IO[bytes], schema: pa.Schema) -> TableWriter:
    writer: TableWriter = pq.ParquetWriter(file, schema, compression="zstd")
    return writer


def _separated(delimiter: str) -> Callable[[IO[bytes], pa.Schema], TableWriter]:
    options = pa_csv.WriteOptions(delimiter=delimiter)
    return lambda file, schema: pa_csv.CSVWriter(file, schema, write_options=options)


_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_WRITERS: dict[str, Callable[[IO[bytes], pa.Schema], TableWriter]] = {
    ".parquet": _parquet,
    ".pq": _parquet,
    **{suffix: _separated(delimiter) for suffix, delimiter in _DELIMITERS.items()},
    ".jsonl": _JsonLinesWriter,
    ".ndjson": _JsonLinesWriter,
}


def check_kind(out: Path) -> None:
    """Raise OutputError unless the file's name says which kind of table it is to be."""
    if out.suffix.lower() not in _WRITERS:
        kind = f"no table ends in {out.suffix}" if out.suffix else "its name does not say which kind of table it is"
        raise OutputError(f"{out}: {kind}; choose another {option('--out')}, in {', '.join(_WRITERS)}")


def check_columns(out: Path, fields: pa.Schema) -> None:
    """Raise OutputError if `out` is CSV or TSV and a column holds what these can't: lists, structs, bytes."""
    if out.suffix.lower() not in _DELIMITERS:
        return
    for field in fields:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind) or "binary" in str(kind):
            raise OutputError(
                f"{out}: the manifest's column {field.name!r} holds {field.type}, which {out.suffix} has no form for; "
                f"choose another {option('--out')}, in .parquet or .jsonl"
            )


def open_writer(out: Path, file: IO[bytes], schema: pa.Schema) -> TableWriter:
    """Open the writer of the kind that `out` names; it writes to `file`, whose name may be another."""
    return _WRITERS[out.suffix.lower()](file, schema)


def is_selection(file: Path) -> bool:
    """Tell whether a file is an earlier selection, or empty.

    Parquet says so in its metadata. Of the others it is known by its last columns: a manifest's own columns are never
    called so in a selection.
    """
    suffix = file.suffix.lower()
    try:
        if _WRITERS[suffix] is _parquet:
            return MARK in (pq.read_schema(file).metadata or {})
        with file.open(encoding="utf-8") as text:
            first = text.readline(2**24)
        if not first:
            return True
        if suffix in _DELIMITERS:
            names = [name.strip('"') for name in first.rstrip("\n").split(_DELIMITERS[suffix])]
        else:
            names = list(json.loads(first))
        return _are_last(names)
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return False


def _are_last(names: Sequence[str]) -> bool:
    """Tell whether a table's last columns are a selection's: one or several pairs of scores, and row."""
    if len(names) < 3 or names[-1] != "row":
        return False
    score, std = (result_of_column(name) for name in names[-3:-1])
    return score is not None and std is not None and (score[0], std[0]) == ("score", "score_std") and score[1] == std[1]
