"""The table of the images that are kept: the manifest's columns, then score, score_std (or several of them), row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..atomic import atomic_file, check_output_file
from ..errors import ManifestError, OutputError, PscrError, one_line, option
from ..manifests import Manifest
from ..manifests.base import Columns
from ..output.parts import is_part
from ..output.run_reader import RunReader
from .table_files import MARK, check_kind, is_selection, open_writer

# Limits of a row group of the output: enough rows to be read fast, but few of those that hold images.
_GROUP_ROWS, _GROUP_BYTES = 2**16, 64 * 2**20


def score_fields(run: RunReader) -> list[pa.Field]:
    """Return the last fields of the output: all scores of the run, then row."""
    return [*(field for columns in run.scores for field in columns.fields), pa.field("row", pa.int64())]


def check_output(out: Path) -> None:
    """Raise OutputError unless `out` is free, or an earlier selection, which may be replaced."""
    if is_part(out.name):
        raise OutputError(f"{out}: is named like a part of a run; name another file")
    if not out.is_dir():  # which is said below
        check_kind(out)
    check_output_file(out, "selection", is_selection)


def source_columns(run: RunReader, manifest: Manifest | None) -> tuple[list[str], pa.Schema]:
    """Choose the columns to take from the parts, and the fields of the output before `score_fields`.

    The fields are the manifest's columns. If one has a name that the output needs itself, "score" for example,
    it becomes "manifest_score". Without a manifest, they are the parts' path, and id if there is one.

    Raises:
        ManifestError: the manifest has a column twice.
    """
    ours = [field.name for field in score_fields(run)]
    if manifest is None:
        schema = run.schema()
        fields = [] if schema is None else [schema.field(name) for name in ("id", "path") if name in schema.names]
        return [*(field.name for field in fields), *ours], pa.schema(fields)
    twice = [name for name, count in Counter(manifest.column_names).items() if count > 1]
    if twice:
        raise ManifestError(f"the manifest has several columns named {twice[0]!r}; rename all but one")
    taken = {*manifest.column_names, *ours}
    fields = []
    for field in manifest.columns(list(manifest.column_names)).schema:
        name = str(field.name)
        if name in ours:
            while name in taken:
                name = f"manifest_{name}"
            taken.add(name)
        fields.append(field.with_name(name))
    return ours, pa.schema(fields)


def write_kept(
    out: Path,
    kept: Iterator[pa.RecordBatch],
    run: RunReader,
    manifest: Manifest | None,
    fields: pa.Schema,
    facts: Mapping[str, Any],
) -> None:
    """Write the kept rows, in their order, with the manifest's columns. The file appears whole, or not at all.

    Args:
        out: the file; its name says of which kind.
        kept: kept rows of the parts, with the columns that `source_columns` chose.
        run: the run that they are from.
        manifest: the manifest whose columns to add; None to add none.
        fields: the fields that `source_columns` chose.
        facts: how the selection was made, kept in the metadata of a Parquet file.

    Raises:
        ManifestError: the manifest can't be read.
        PscrError: the file or one of its columns can't be written.
    """
    schema = pa.schema([*fields, *score_fields(run)], metadata={MARK: json.dumps(facts)})
    reader = None if manifest is None else manifest.columns(list(manifest.column_names))
    try:
        with (
            atomic_file(out) as temporary,
            temporary.open("wb") as file,
            closing(open_writer(out, file, schema)) as writer,
        ):
            waiting: list[pa.Table] = []
            rows = nbytes = 0
            for table in _tables(kept, reader, schema, [field.name for field in score_fields(run)]):
                waiting.append(table)
                rows, nbytes = rows + len(table), nbytes + table.nbytes
                if rows >= _GROUP_ROWS or nbytes >= _GROUP_BYTES:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, rows, nbytes = [], 0, 0
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
            if manifest is not None:
                manifest.check_files_unchanged()
    except OSError as error:
        raise PscrError(
            f"{out}: can't be written ({error.strerror or error}); choose another {option('--out')}"
        ) from error
    except pa.ArrowException as error:
        raise PscrError(f"{out}: a column can't be written ({one_line(error, 200)})") from error


def _tables(
    kept: Iterator[pa.RecordBatch], reader: Columns | None, schema: pa.Schema, last: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the kept rows in pieces of little more than `_GROUP_BYTES`: a manifest may hold the images themselves."""
    step = 64
    for batch in kept:
        at = 0
        while at < batch.num_rows:
            table = _joined(batch.slice(at, step), reader, schema, last)
            at += len(table)
            yield table
            step = max(1, min(_GROUP_ROWS, _GROUP_BYTES * len(table) // max(1, table.nbytes)))


def _joined(batch: pa.RecordBatch, reader: Columns | None, schema: pa.Schema, last: Sequence[str]) -> pa.Table:
    """Add the manifest's columns to kept rows of the parts; without a reader, select the parts' own columns."""
    if reader is None:
        return pa.Table.from_batches([batch.select(schema.names)]).cast(schema)
    columns = reader.take(batch.column("row").to_numpy()).columns
    scores = [batch.column(name) for name in last]
    return pa.table([*columns, *scores], schema=schema)
