"""Folders of Parquet files whose columns differ, and columns that the names of folders give."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine.errors import ManifestError
from pscr_engine.manifests import ManifestOptions, open_manifest

from ..helpers.runs import make_run
from .test_stored import parquet

TEXT, INTS = pa.array(["a", "b"]), pa.array([1, 2])
NULLS = pa.nulls(2)


def folder_of(tmp_path, *tables):
    folder = tmp_path / "data"
    for number, (name, columns) in enumerate(
        each if isinstance(each, tuple) else (f"{index}.parquet", each) for index, each in enumerate(tables)
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        paths = {} if "path" in columns or "image" in columns else {"path": [f"{number}-0.png", f"{number}-1.png"]}
        pq.write_table(pa.table({**paths, **columns}), folder / name)
    return folder


def taken(manifest, *names, rows=None):
    rows = np.arange(manifest.num_rows) if rows is None else np.array(rows)
    return manifest.columns(list(names)).take(rows)


@pytest.mark.parametrize(
    ("first", "second", "type_", "values"),
    [
        (NULLS, TEXT, pa.string(), [None, None, "a", "b"]),
        (TEXT, NULLS, pa.string(), ["a", "b", None, None]),
        (INTS, pa.array([0.5, None]), pa.float64(), [1.0, 2.0, 0.5, None]),
        (INTS.cast(pa.int8()), INTS, pa.int64(), [1, 2, 1, 2]),
        (TEXT.dictionary_encode(), TEXT, pa.string(), ["a", "b", "a", "b"]),
        (TEXT.cast(pa.string_view()), TEXT.cast(pa.large_string()), pa.large_string(), ["a", "b", "a", "b"]),
        (pa.array([[], None]), pa.array([["x"], []]), pa.list_(pa.string()), [[], None, ["x"], []]),
        (
            pa.array([{"a": 1}, None]),
            pa.array([{"b": "x", "a": 2}] * 2),
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
            [{"a": 1, "b": None}, None, {"a": 2, "b": "x"}, {"a": 2, "b": "x"}],
        ),
        (INTS.cast(pa.timestamp("ms")), INTS.cast(pa.timestamp("us")), pa.timestamp("us"), None),
    ],
)
def test_columns_that_nobody_needs_for_scoring_may_differ(tmp_path, first, second, type_, values):
    manifest = open_manifest(folder_of(tmp_path, {"x": first}, {"x": second}))
    assert [query.path for query in manifest.rows()] == ["0-0.png", "0-1.png", "1-0.png", "1-1.png"]
    table = taken(pickle.loads(pickle.dumps(manifest)), "x")
    assert table.schema.field("x").type == type_
    if values is not None:
        assert table["x"].to_pylist() == values


def test_columns_may_be_in_another_order_and_in_some_files_only(tmp_path):
    paths = pa.array(["1-0.png", "1-1.png"])
    folder = folder_of(tmp_path, {"x": TEXT}, {"y": INTS, "path": paths, "x": NULLS}, {})
    manifest = open_manifest(folder)
    assert manifest.column_names == ["path", "x", "y"]
    table = taken(manifest, "y", "x", "path", rows=[0, 2, 3, 5])
    assert table.to_pydict() == {
        "y": [None, 1, 2, None],
        "x": ["a", None, None, None],
        "path": ["0-0.png", "1-0.png", "1-1.png", "2-1.png"],
    }
    assert taken(manifest, "y", rows=[0, 1])["y"].to_pylist() == [None, None]


def test_a_column_that_may_not_be_null_may_be_null_elsewhere(tmp_path):
    folder = folder_of(tmp_path, {"x": TEXT}, {"x": TEXT})
    strict = pa.schema([pa.field("path", pa.string(), nullable=False), pa.field("x", pa.string(), nullable=False)])
    pq.write_table(pa.table({"path": ["a", "b"], "x": ["c", "d"]}, schema=strict), folder / "0.parquet")
    pq.write_table(pa.table({"path": ["e", None], "x": ["f", None]}), folder / "1.parquet")
    manifest = open_manifest(folder)
    assert [query.status.value for query in manifest.rows()] == ["ok", "ok", "ok", "missing"]
    assert taken(manifest, "path", "x")["x"].to_pylist() == ["c", "d", "f", None]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (TEXT, INTS),
        (TEXT, pa.array([b"a", b"b"])),
        (INTS, pa.array([True, False])),
        (INTS, INTS.cast(pa.timestamp("ms"))),
    ],
)
def test_types_with_nothing_in_common_are_named_when_they_are_needed(cli, tmp_path, first, second):
    folder = folder_of(tmp_path, {"x": first, "y": TEXT}, {"x": second, "y": TEXT})
    manifest = open_manifest(folder)
    assert len(list(manifest.rows())) == 4
    assert taken(manifest, "y")["y"].to_pylist() == ["a", "b", "a", "b"]
    message = f"{folder}/1.parquet: its column 'x' holds {second.type}, that of {folder}/0.parquet {first.type}; store"
    with pytest.raises(ManifestError) as raised:
        manifest.columns(["x"])
    assert message in str(raised.value)
    make_run(tmp_path / "scores", folder, [1.0, 2.0, 3.0, 4.0])
    outcome = cli("select", "scores", "--top", "1")
    assert outcome.returncode == 2
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert cli("report", "scores", "--by", "y", "--caption", "y").returncode == 0


def test_a_number_that_would_be_lost_is_told(tmp_path):
    folder = folder_of(tmp_path, {"x": pa.array([2**60 + 1, 2])}, {"x": pa.array([0.5, 1.5])})
    with pytest.raises(ManifestError, match=r"0\.parquet: its column 'x' holds int64 that can't become double"):
        taken(open_manifest(folder), "x")


def test_select_and_report_have_all_columns(cli, tmp_path):
    folder = folder_of(tmp_path, {"x": NULLS, "prompt": TEXT}, {"x": TEXT}, {"z": INTS})
    make_run(tmp_path / "scores", folder, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    outcome = cli("select", "scores", "--top", "100%")
    assert outcome.returncode == 0, outcome.stderr
    kept = pq.read_table(tmp_path / "kept.parquet")
    assert kept["x"].to_pylist() == [None, None, "a", "b", None, None]
    assert kept["prompt"].to_pylist() == ["a", "b", None, None, None, None]
    assert kept["z"].to_pylist() == [None, None, None, None, 1, 2]
    outcome = cli("report", "scores", "--by", "prompt", "--caption", "x")
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            [{"path": TEXT}, {"file": TEXT, "path": pa.array([b"a", b"b"])}],
            r"1\.parquet: its column 'path' holds images",
        ),
        ([{"path": TEXT}, {"image": TEXT}], r"1\.parquet: its images are in column 'image', those of .*0\.parquet in"),
        ([{"path": TEXT}, {"path": INTS}], r"1\.parquet: the image column holds int64, not paths"),
        ([{"id": INTS}, {}], r"1\.parquet: no column 'id', which .*0\.parquet has"),
        ([{}, {"id": INTS}], r"0\.parquet: no column 'id', which .*1\.parquet has"),
        ([{"id": INTS}, {"id": TEXT}], r"1\.parquet: its column 'id' holds string, that of .*0\.parquet int64"),
        ([{"id": INTS}, {"id": pa.array([1.0, 2.0])}], r"1\.parquet: its column 'id' holds double"),
        ([{"id": INTS.cast(pa.uint64())}, {"id": INTS}], r"1\.parquet: its column 'id' holds int64"),
    ],
)
def test_the_columns_that_scoring_needs_must_fit(tmp_path, tables, message):
    with pytest.raises(ManifestError, match=message) as raised:
        open_manifest(folder_of(tmp_path, *tables))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("first", "second", "type_", "ids"),
    [
        (INTS.cast(pa.int16()), INTS, pa.int64(), [1, 2, 1, 2]),
        (NULLS, INTS, pa.int64(), [None, None, 1, 2]),
        (TEXT.dictionary_encode(), TEXT.cast(pa.large_string()), pa.large_string(), ["a", "b", "a", "b"]),
    ],
)
def test_identifiers_of_another_width_fit(tmp_path, first, second, type_, ids):
    manifest = open_manifest(folder_of(tmp_path, {"id": first}, {"id": second}))
    assert manifest.id_type == type_
    assert [query.id for query in manifest.rows()] == ids


def test_the_fingerprint_is_that_of_the_images_and_identifiers(tmp_path):
    before = open_manifest(folder_of(tmp_path, {"id": INTS, "x": TEXT}, {"id": INTS, "x": TEXT})).fingerprint
    assert open_manifest(folder_of(tmp_path, {"id": INTS}, {"id": INTS, "x": INTS})).fingerprint == before
    assert open_manifest(folder_of(tmp_path, {"id": INTS}, {"id": pa.array([1, 3])})).fingerprint != before


def test_folders_named_after_values_are_columns(cli, tmp_path):
    folder = folder_of(
        tmp_path,
        ("model=sd/steps=007/part-0.parquet", {"x": INTS}),
        ("model=a%2Fb/part-0.parquet", {}),
        ("model=__HIVE_DEFAULT_PARTITION__/part-0.parquet", {}),
    )
    manifest = open_manifest(folder)
    assert manifest.column_names == ["path", "x", "model", "steps"]
    expected = [None, None, "a/b", "a/b", "sd", "sd"]
    assert taken(manifest, "model")["model"].to_pylist() == expected
    assert taken(manifest, "steps", "x", "model", rows=[0, 3, 5]).to_pylist() == [
        {"steps": None, "x": None, "model": None},
        {"steps": None, "x": None, "model": "a/b"},
        {"steps": "007", "x": 2, "model": "sd"},
    ]
    one = open_manifest(f"{folder}/model=s*/**/*.parquet")
    assert taken(one, "model", "steps").to_pylist() == [{"model": "sd", "steps": "007"}] * 2
    make_run(tmp_path / "scores", folder, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    outcome = cli("select", "scores", "--per-group", "model", "--top", "1")
    assert outcome.returncode == 0, outcome.stderr
    assert pq.read_table(tmp_path / "kept.parquet")["model"].to_pylist() == [None, "a/b", "sd"]
    outcome = cli("report", "scores", "--by", "model", "--caption", "steps")
    assert outcome.returncode == 0, outcome.stderr


def test_a_column_of_a_file_comes_before_one_of_its_folder(tmp_path):
    folder = folder_of(tmp_path, ("model=sd/0.parquet", {"model": TEXT}), ("id=3/1.parquet", {}))
    manifest = open_manifest(folder)
    assert manifest.column_names == ["path", "model", "id"]
    assert taken(manifest, "model")["model"].to_pylist() == [None, None, "a", "b"]
    assert manifest.id_type is None
    with pytest.raises(ManifestError, match="no column 'nothing'"):
        open_manifest(folder, ManifestOptions(id_column="nothing"))


def test_files_of_a_store_may_differ_as_well(bucket):
    bucket.put("d/model=sd/0.parquet", parquet(path=["a.png"], x=["s"]))
    bucket.put("d/model=xl/0.parquet", parquet(x=pa.nulls(1), path=["b.png"], y=[1]))
    for uri in (f"{bucket.uri}/d", f"{bucket.uri}/d/*/0.parquet"):
        manifest = open_manifest(uri)
        assert [query.path for query in manifest.rows()] == ["a.png", "b.png"]
        assert taken(manifest, "x", "y", "model").to_pydict() == {
            "x": ["s", None], "y": [None, 1], "model": ["sd", "xl"],
        }  # fmt: skip
