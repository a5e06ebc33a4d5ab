"""Generated lists, read by DuckDB, Polars and us: the same rows, or an error or a reason from us."""

from __future__ import annotations

import csv
import io
import json
import shutil

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pscr_engine.errors import ManifestError
from pscr_engine.manifests import open_manifest

pytestmark = pytest.mark.slow
SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# No carriage returns by themselves: each reader has a rule of its own for them.
CELL = st.text(st.sampled_from('ab,"\n; \té0\\'), max_size=6)


def csv_text(rows, end):
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows(
        [["path", "x", "y"][: len(rows[0])] if rows else ["path", "x"], *rows]
    )
    return out.getvalue()


def duckdb_paths(path, width):
    columns = dict.fromkeys(("path", "x", "y")[:width], "VARCHAR")
    rows = duckdb.read_csv(
        str(path), header=True, sep=",", quotechar='"', escapechar='"', columns=columns, auto_detect=False
    ).fetchall()
    return [row[0] or "" for row in rows]


def polars_paths(path):
    return pl.read_csv(path, infer_schema=False)["path"].fill_null("").to_list()


ROWS = st.integers(2, 3).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=8))


@SETTINGS
@given(rows=ROWS, end=st.sampled_from(["\n", "\r\n"]))
def test_csv(tmp_path, rows, end):
    path = tmp_path / "m.csv"
    path.write_bytes(csv_text(rows, end).encode())
    ours = [query.path or "" for query in open_manifest(path).rows()]
    assert ours == [row[0] for row in rows]
    assert ours == polars_paths(path)
    assert ours == duckdb_paths(path, len(rows[0]) if rows else 2)


@SETTINGS
@given(rows=ROWS.filter(bool), at=st.floats(0, 1), damage=st.sampled_from(['"', ",", "\n", "a,", '","']))
def test_damaged_csv_has_no_fewer_rows_than_others_see(tmp_path, rows, at, damage):
    path = tmp_path / "m.csv"
    text = csv_text(rows, "\n")
    first = text.index("\n") + 1
    place = first + int(at * (len(text) - first))
    path.write_bytes((text[:place] + damage + text[place:]).encode())
    try:
        ours = list(open_manifest(path).rows())
    except ManifestError:
        return
    for reader in (polars_paths, lambda path: duckdb_paths(path, len(rows[0]))):
        try:
            theirs = reader(path)
        except (pl.exceptions.PolarsError, duckdb.Error):
            continue
        blank = damage == "\n"  # a row to some readers, and none to others
        assert len(ours) >= len(theirs) - blank or any(not query.ok and query.error for query in ours)


VALUE = st.none() | st.text(max_size=4) | st.integers(-9, 9)


@SETTINGS
@given(
    values=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), VALUE),
        min_size=1,
        max_size=8,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_json_lines(tmp_path, values, end):
    path = tmp_path / "m.jsonl"
    path.write_bytes("".join(json.dumps({"path": name, "id": id_}) + end for name, id_ in values).encode())
    queries = list(open_manifest(path).rows())
    assert [query.path for query in queries] == [name for name, _ in values]
    rows = duckdb.sql(f"select path from read_json('{path}', format='newline_delimited', columns={{path: 'VARCHAR'}})")
    assert [query.path for query in queries] == [row[0] for row in rows.fetchall()]
    assert [query.path for query in queries] == pl.read_ndjson(path, schema={"path": pl.String})["path"].to_list()


TYPES = {
    pa.null(): st.none(),
    pa.string(): st.none() | st.text(st.sampled_from("aé0"), max_size=3),
    pa.int32(): st.none() | st.integers(-99, 99),
    pa.int64(): st.none() | st.integers(-(2**40), 2**40),
    pa.float64(): st.none() | st.floats(-9, 9),
}


@st.composite
def parquet_tables(draw):
    rows = draw(st.integers(0, 5))
    columns = {"path": pa.array([draw(st.text("ab", min_size=1, max_size=3)) for _ in range(rows)], pa.string())}
    for name in draw(st.lists(st.sampled_from("xy"), unique=True)):
        type_ = draw(st.sampled_from(list(TYPES)))
        columns[name] = pa.array([draw(TYPES[type_]) for _ in range(rows)], type_)
    return pa.table({name: columns[name] for name in draw(st.permutations(list(columns)))})


@SETTINGS
@given(tables=st.lists(parquet_tables(), min_size=1, max_size=4), group=st.integers(1, 3))
def test_folders_of_parquet_files(tmp_path, tables, group):
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for index, table in enumerate(tables):
        pq.write_table(table, folder / f"{index}.parquet", row_group_size=group)
    manifest = open_manifest(folder)
    theirs = duckdb.sql(f"select * from read_parquet('{folder}/*.parquet', union_by_name=true)").to_arrow_table()
    paths = [query.path for query in manifest.rows()]
    assert paths == theirs["path"].to_pylist()
    for name in set(manifest.column_names) - {"path"}:
        types = {table.schema.field(name).type for table in tables if name in table.column_names}
        try:
            ours = manifest.columns([name]).take(np.arange(len(paths)))[name].to_pylist()
        except ManifestError:
            united = pa.string() not in types or len(types - {pa.null()}) == 1
            assert not united, types
            continue
        assert [None if value is None else float(value) if isinstance(value, int) else value for value in ours] == [
            None if value is None else float(value) if isinstance(value, int) else value
            for value in theirs[name].to_pylist()
        ]
