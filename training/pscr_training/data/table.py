"""Reader of a user's own labelled images: a CSV, TSV, JSONL or Parquet file with columns of images and of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pscr_engine.errors import DatasetError, one_line, option, wrong_usage

from .labelled import Item, Labelled, number, raise_faults, require_file

_PARTS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


def table(
    source: Path,
    label: str = "mos",
    root: Path | None = None,
    part_column: str | None = None,
    path_column: str = "path",
) -> Labelled:
    """Read a file of labelled images. A column `prompt`, if there is one, groups images for splits by prompt.

    Args:
        source: the file.
        label: the column of labels.
        root: folder that paths start from; None for the file's own.
        part_column: the column that says train, test or val; None if there is none.
        path_column: the column of images' paths.

    Raises:
        DatasetError: the file can't be read, lacks a column, or has rows that can't be used.
    """
    require_file(source, f"columns {path_column} and {label}")
    read = _read(source, path_column)
    lacking = [name for name in (path_column, label, part_column) if name and name not in read.column_names]
    if lacking:
        advice = {label: f"name the labels' with {option('--label')}"}
        advice[path_column] = f"name the images' with {option('--path-column')}"
        advice |= {part_column: f"name the parts' with {option('--split-column')}"} if part_column else {}
        raise wrong_usage(
            DatasetError(
                f"{source}: no column {', '.join(lacking)} (there is {', '.join(read.column_names)}); "
                + ", ".join(advice[name] for name in lacking)
            )
        )
    if not read.num_rows:
        raise DatasetError(f"{source}: no rows in it")
    columns = {
        name: _values(source, name, read[name])
        for name in read.column_names
        if name in (path_column, "prompt", label, part_column)
    }
    prompts = columns.get("prompt", [None] * read.num_rows)
    parts = columns[part_column] if part_column else [None] * read.num_rows
    faults: list[str] = []
    items, folder = [], root or source.parent
    for row, (path, value, prompt, part) in enumerate(
        zip(columns[path_column], columns[label], prompts, parts, strict=True)
    ):
        if not isinstance(path, str) or not path:
            faults.append(f"row {row}: {path_column} {path!r} is not text")
            continue
        name = None if part is None else _PARTS.get(str(part).strip().lower())
        if part_column and name is None:
            faults.append(f"row {row}, {path}: {part_column} is {part!r}, not train, test or val")
        mos = number(value, f"row {row}, {path}", faults)
        items.append(Item(row, path, folder / path, mos, None if prompt is None else str(prompt), name))
    raise_faults(source, faults)
    labels = [item.mos for item in items]
    return Labelled(str(source), label, items, read.num_rows, (min(labels), max(labels)))


def _read(source: Path, path_column: str) -> pa.Table:
    text = pa.csv.ConvertOptions(column_types={path_column: pa.string(), "prompt": pa.string()})
    suffix = source.suffix.lower()
    try:
        match suffix:
            case ".parquet":
                return pq.read_table(source)
            case ".csv" | ".tsv":
                parsing = pa.csv.ParseOptions(delimiter="," if suffix == ".csv" else "\t", newlines_in_values=True)
                return pa.csv.read_csv(source, parse_options=parsing, convert_options=text)
            case ".jsonl":
                return pa.json.read_json(source)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{source}: can't be read ({error})") from error
    raise DatasetError(f"{source}: unknown kind of table; use .csv, .tsv, .jsonl or .parquet")


def _values(source: Path, name: str, column: pa.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException) as error:  # not UTF-8, or times that Python can't hold
        raise DatasetError(
            f"{source}: column {name!r} holds {column.type} that can't be read ({one_line(error, 100)}); "
            "write it as text or numbers"
        ) from error
