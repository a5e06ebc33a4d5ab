"""Columns of types that Arrow's functions, or Python, can't hold."""

import base64
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine.manifests import open_manifest
from pscr_engine.manifests.arrow_types import as_text, exact_values, plain, stored, without_views
from pscr_engine.output.run_reader import RunReader
from pscr_engine.stages.sink import output_schema, to_table

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

TEXT = pa.array(["a", None, "b"], pa.string_view())
BYTES = pa.array([b"a", None, b"b"], pa.binary_view())
VIEWS = {
    "text": TEXT,
    "bytes": BYTES,
    "struct": pa.StructArray.from_arrays([TEXT, BYTES], ["text", "bytes"]),
    "list": pa.ListArray.from_arrays([0, 2, 2, 3], TEXT),
    "large_list": pa.LargeListArray.from_arrays([0, 2, 2, 3], BYTES),
    "fixed_list": pa.FixedSizeListArray.from_arrays(TEXT, 1),
    "map": pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["x", "y", "z"], pa.string_view()), TEXT),
    "deep": pa.StructArray.from_arrays([pa.ListArray.from_arrays([0, 2, 2, 3], TEXT)], ["texts"]),
}
TIMES = {
    "time": pa.array([1_001, None, 2**62], pa.timestamp("ns")),
    "duration": pa.array([1_001, None, 2**62], pa.duration("ns")),
    "far": pa.array([2**50, None, 5], pa.timestamp("ms")),
    "zone": pa.array([1, None, 5], pa.timestamp("ms", "Nowhere/At_All")),
    "day": pa.array([2**30, None, 5], pa.int32()).cast(pa.date32()),
    "text": pa.array([b"\xff", None, b"b"], pa.binary()).cast(pa.string(), safe=False),
}
NESTED = {
    **{f"{name} in a list": pa.ListArray.from_arrays([0, 1, 1, 3], times) for name, times in TIMES.items()},
    **{f"{name} in a struct": pa.StructArray.from_arrays([times], ["x"]) for name, times in TIMES.items()},
}
IDS = ["time in a list", "duration in a struct", "far in a list", "text in a struct", "time"]
# Python as if pandas were not installed.
WITHOUT_PANDAS = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name, name="pandas")
sys.meta_path.insert(0, Hidden())
"""


def test_views_become_plain_and_keep_their_values():
    for name, column in VIEWS.items():
        found = plain(column)
        assert "view" not in str(found.type), name
        assert found.to_pylist() == column.to_pylist()
        assert found.type == without_views(column.type)
        assert found.take(pa.array([2, 0])).to_pylist() == [column.to_pylist()[at] for at in (2, 0)]
    column = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1]), pa.array(["a", "b"], pa.string_view()))
    assert plain(column).dictionary_decode().to_pylist() == ["b", "a", "b"]
    same = pa.array([[1]])
    assert plain(same) is same


def test_views_need_not_be_utf_8():
    column = pa.array([b"caf\xe9"], pa.binary()).cast(pa.string(), safe=False).cast(pa.string_view(), safe=False)
    assert plain(column).cast(pa.binary(), safe=False).to_pylist() == [b"caf\xe9"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Score three images that a manifest full of views names, by a run with an identifier in views, too."""
    folder = tmp_path_factory.mktemp("views")
    for index in range(3):
        (folder / f"{index}.png").write_bytes(encoded(pixels(40, 40, index)))
    make_bundle(folder / "model.pscr")
    paths = pa.array([f"{index}.png" for index in range(3)], pa.string_view())
    pq.write_table(pa.table({"path": paths, "id": VIEWS["struct"], **VIEWS}), folder / "m.parquet")
    run(folder, "score", "--manifest", "m.parquet", "--bundle", "model.pscr", "--devices", "cpu")
    return folder


def run(folder, *arguments, code=0, prelude=""):
    listed = list(map(str, arguments))
    command = f"{prelude}\nimport sys\nfrom pscr_engine.cli import main\nsys.argv[1:] = {listed!r}\nmain()"
    outcome = subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, timeout=360)
    assert outcome.returncode == code, outcome.stderr
    assert "Traceback" not in outcome.stderr
    return outcome


@pytest.mark.medium
def test_select_carries_views(scored):
    run(scored, "select", "scores", "--top", "2", "--out", "kept.parquet")
    kept = pq.read_table(scored / "kept.parquet")
    for name, column in VIEWS.items():
        assert kept[name].to_pylist() == [column.to_pylist()[row] for row in kept["row"].to_pylist()], name


@pytest.mark.medium
@pytest.mark.parametrize("name", ["text", "bytes"])
def test_report_groups_by_views(scored, name):
    run(scored, "report", "scores", "--by", name, "--caption", "deep", "--out", f"{name}.html")
    run(scored, "select", "scores", "--per-group", name, "--top", "1", "--out", f"{name}.parquet")


@pytest.mark.medium
def test_what_is_no_group_is_told_in_one_line(scored):
    outcome = run(scored, "report", "scores", "--by", "list", "--out", "list.html", code=2)
    assert outcome.stderr.count("\n") == 1
    assert "column 'list' holds list<" in outcome.stderr


def test_a_dictionary_of_views_can_be_a_path(tmp_path):
    """Read what other writers' schemas make of a column of categories: Arrow itself writes none."""
    view = pa.schema([pa.field("path", pa.dictionary(pa.int32(), pa.string_view()))])
    schema = pa.schema([pa.field("path", pa.string())])
    table = pa.table({"path": ["a.png", "b.png", "a.png"]}, schema=schema)
    with pq.ParquetWriter(tmp_path / "m.parquet", schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(view.serialize().to_pybytes()).decode()})
    manifest = open_manifest(str(tmp_path / "m.parquet"))
    assert [query.path for query in manifest.rows()] == ["a.png", "b.png", "a.png"]
    taken = manifest.columns(["path"]).take(np.array([1, 2]))
    assert [*map(str, taken.column(0).to_pylist())] == ["b.png", "a.png"]


def test_times_are_exact_whatever_python_can_hold():
    for name, column in NESTED.items():
        assert exact_values(column) == exact_values(plain(column)), name
    assert exact_values(NESTED["time in a list"]) == [[1001], [], [None, 2**62]]
    assert exact_values(NESTED["duration in a struct"]) == [{"x": 1001}, {"x": None}, {"x": 2**62}]
    assert exact_values(NESTED["text in a struct"]) == [{"x": b"\xff"}, {"x": None}, {"x": b"b"}]


def test_text_for_people():
    assert as_text(pa.array([1.0, None])) == ["1.0", None]
    assert as_text(TIMES["time"])[:2] == ["1970-01-01 00:00:00.000001001", None]
    assert as_text(NESTED["time in a list"])[0] == "['1970-01-01 00:00:00.000001001']"
    assert as_text(TIMES["text"]) == ["\ufffd", None, "b"]
    assert as_text(pa.array(["a", None, "a"]).dictionary_encode()) == ["a", None, "a"]
    for name, column in {**TIMES, **NESTED, **VIEWS}.items():
        found = as_text(column)
        assert [value is None for value in found] == column.is_null().to_pylist(), name
        assert all(value is None or "\n" not in value for value in found)


@pytest.mark.slow
@pytest.mark.parametrize("prelude", ["", WITHOUT_PANDAS], ids=["as installed", "without pandas"])
def test_identifiers_and_captions_of_times(tmp_path, prelude):
    make_bundle(tmp_path / "model.pscr")
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(encoded(pixels(40, 40, index)))
    columns = {"path": [f"{index}.png" for index in range(3)], **TIMES, **NESTED}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    for number, name in enumerate(IDS):
        options = ("--bundle", "model.pscr", "--id-column", name, "--out", f"scores-{number}", "--devices", "cpu")
        run(tmp_path, "score", "--manifest", "m.parquet", *options, prelude=prelude)
        ids = RunReader.open(tmp_path / f"scores-{number}").parts.read(0, ["id"]).column("id").combine_chunks()
        assert ids.cast(columns[name].type).equals(columns[name]), name
        shown = ("--caption", name, "--out", f"{number}.html")
        run(tmp_path, "report", f"scores-{number}", *shown, prelude=prelude)


@pytest.mark.medium
def test_a_fingerprint_does_not_depend_on_pandas(tmp_path):
    column = pa.ListArray.from_arrays([0, 1, 1, 3], pa.array([1000, None, 2000], pa.timestamp("ns")))
    pq.write_table(pa.table({"path": ["a", "b", "c"], "id": column}), tmp_path / "m.parquet")
    code = "from pscr_engine.manifests import open_manifest; print(open_manifest('m.parquet').fingerprint)"
    found = {
        subprocess.run(
            [sys.executable, "-c", prelude + code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for prelude in ("", WITHOUT_PANDAS)
    }
    assert len(found) == 1


def test_a_struct_whose_path_is_no_path_is_refused(tmp_path):
    column = pa.StructArray.from_arrays([TIMES["time"]], ["path"])
    pq.write_table(pa.table({"path": column}), tmp_path / "m.parquet")
    outcome = run(tmp_path, "score", "--manifest", "m.parquet", "--devices", "cpu", code=2)
    assert "'path' in the image column holds timestamp[ns], not paths" in outcome.stderr


UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes([at] * 16) for at in range(3)], pa.binary(16)))
PAIRS = pa.ExtensionArray.from_storage(
    pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2]] * 3, pa.list_(pa.int32(), 2))
)
EXTENSIONS = {
    "uuid": (UUIDS, pa.uuid()),
    "tensor": (PAIRS, pa.list_(pa.int32(), 2)),
    "list": (pa.ListArray.from_arrays([0, 1, 1, 3], UUIDS), pa.list_(pa.binary(16))),
    "struct": (pa.StructArray.from_arrays([PAIRS], ["x"]), pa.struct([("x", pa.list_(pa.int32(), 2))])),
    "map": (
        pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "c"]), UUIDS),
        pa.map_(pa.string(), pa.binary(16)),
    ),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_identifiers_of_extension_types_are_what_they_are_stored_as(tmp_path, name):
    column, type_ = EXTENSIONS[name]
    pq.write_table(pa.table({"path": ["a", "b", "c"], "id": column}), tmp_path / "m.parquet")
    manifest = open_manifest(tmp_path / "m.parquet")
    assert manifest.id_type == type_
    table = to_table(list(manifest.rows()), output_schema(manifest.id_type, None))
    pq.write_table(table.sort_by("row"), tmp_path / "part.parquet")
    written = pq.read_table(tmp_path / "part.parquet")["id"].combine_chunks()
    assert written.equals(stored(column))
    assert len(as_text(written)) == 3
    assert manifest.columns(["id"]).take(np.array([1, 2])).column(0).combine_chunks().equals(column.slice(1))
