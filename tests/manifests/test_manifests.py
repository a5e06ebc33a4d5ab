import io
import json
import os
import tarfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pscr_engine.errors import ManifestError
from pscr_engine.manifests import ManifestOptions, open_manifest
from pscr_engine.records import Status
from pscr_engine.stages.fetch import read_file
from pscr_engine.stages.sink import in_order, output_schema, to_table

ROWS = [{"id": 7, "path": "a.png"}, {"id": 8, "path": "b c.png"}, {"id": 9, "path": "a.png"}]


def write(folder: Path, kind: str, rows=ROWS) -> Path:
    path = folder / f"m.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        comma = {"csv": ",", "tsv": "\t"}[kind]
        lines = [comma.join(rows[0])] + [comma.join(str(value) for value in row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_rows_of_every_kind(tmp_path, kind, start):
    queries = list(open_manifest(write(tmp_path, kind)).rows(start))
    assert [query.row for query in queries] == [0, 1, 2][start:]
    assert [query.path for query in queries] == ["a.png", "b c.png", "a.png"][start:]
    assert [query.location for query in queries] == [str(tmp_path / name) for name in ("a.png", "b c.png", "a.png")][
        start:
    ]
    # Only Parquet says what type an identifier has; "007" must stay "007" elsewhere.
    assert [query.id for query in queries] == ([7, 8, 9] if kind == "parquet" else ["7", "8", "9"])[start:]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_missing_column_names_those_there_are(tmp_path, kind):
    path = write(tmp_path, kind, [{"id": 1, "file": "x"}])
    with pytest.raises(ManifestError, match=r"no column 'path' \(columns: id, file\); choose one with path_column"):
        open_manifest(path)
    with pytest.raises(ManifestError, match="id_column"):
        open_manifest(path, ManifestOptions(path_column="file", id_column="key"))
    assert next(open_manifest(path, ManifestOptions(path_column="file")).rows()).path == "x"


def test_the_fingerprint_follows_the_content(tmp_path):
    for kind in ("parquet", "csv", "jsonl"):
        first = open_manifest(write(tmp_path, kind)).fingerprint
        assert open_manifest(write(tmp_path, kind)).fingerprint == first
        assert open_manifest(write(tmp_path, kind, ROWS[:2])).fingerprint != first


def test_images_inside_parquet(tmp_path):
    struct = [{"bytes": b"abc", "path": "n.png"}, {"bytes": None, "path": "n.png"}, None]
    pq.write_table(pa.table({"image": struct}), tmp_path / "hf.parquet")
    queries = list(open_manifest(tmp_path / "hf.parquet").rows())
    assert (queries[0].data, queries[0].path) == (b"abc", "n.png")
    assert queries[1].location == str(tmp_path / "n.png")
    assert queries[2].status == Status.MISSING
    pq.write_table(pa.table({"path": [b"abc"]}), tmp_path / "raw.parquet")
    assert next(open_manifest(tmp_path / "raw.parquet").rows()).data == b"abc"
    pq.write_table(pa.table({"path": [1.5]}), tmp_path / "numbers.parquet")
    with pytest.raises(ManifestError, match="holds double, not paths or bytes"):
        open_manifest(tmp_path / "numbers.parquet")


def test_a_directory_of_parquet_files_is_one_manifest(tmp_path):
    (tmp_path / "d").mkdir()
    for index in range(3):
        pq.write_table(pa.table({"path": [f"{index}-{k}" for k in range(2)]}), tmp_path / "d" / f"{index}.parquet")
    manifest = open_manifest(tmp_path / "d")
    assert manifest.num_rows == 6
    assert [(query.row, query.path) for query in manifest.rows(3)] == [(3, "1-1"), (4, "2-0"), (5, "2-1")]
    pq.write_table(pa.table({"file": ["x"]}), tmp_path / "d" / "9.parquet")
    with pytest.raises(ManifestError, match=r"9\.parquet: no column 'path' \(columns: file\)"):
        open_manifest(tmp_path / "d")


def test_directories_and_globs_are_sorted(tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name in ("b.PNG", "a.jpg", "notes.txt", "sub/c.webp"):
        (tmp_path / "d" / name).touch()
    rows = list(open_manifest(tmp_path / "d").rows())
    assert [query.path for query in rows] == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert rows[2].location == str(tmp_path / "d" / "sub" / "c.webp")
    rows = list(open_manifest(str(tmp_path / "d" / "**" / "*")).rows())
    assert [Path(query.location).name for query in rows] == ["a.jpg", "b.PNG", "notes.txt", "c.webp"]


@pytest.mark.parametrize(
    "what", ["nothing.csv", "empty-folder", "*.nope", "plain.txt", "broken.parquet", "empty.csv", "x.jsonl"]
)
def test_no_manifest_is_one_line(tmp_path, what):
    (tmp_path / "empty-folder").mkdir()
    for name in ("plain.txt", "broken.parquet", "empty.csv", "x.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(ManifestError) as raised:
        open_manifest(tmp_path / what)
    assert "\n" not in str(raised.value)


def test_bad_lines_are_rows(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "a"}\n{"path": \n\n[1]\n{"other": 1}\n{"path": 5}\n{"path": ""}\n')
    queries = list(open_manifest(tmp_path / "m.jsonl").rows())
    assert [query.status.value for query in queries] == [
        "ok",
        "unreadable",
        "unreadable",
        "missing",
        "unreadable",
        "missing",
    ]
    assert queries[1].error == "line 2 of the manifest is not a JSON object"
    (tmp_path / "m.csv").write_text("id,path\n1,a\n2\n\n3,c\n")
    queries = list(open_manifest(tmp_path / "m.csv").rows())
    assert [(query.id, query.status.value) for query in queries] == [
        ("1", "ok"),
        ("2", "unreadable"),
        ("3", "ok"),
    ]
    assert queries[1].error == "line 3 of the manifest has 1 fields, its header has 2"


def test_uris_and_roots(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    paths = [
        "a.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "file:///x%20y.png",
        "ftp://host/a.png",
        "S3://bucket/a b%20?.png",
        "https://host/a.png",
    ]
    path = write(tmp_path, "jsonl", [{"path": value} for value in paths])
    free = list(open_manifest(path).rows())
    assert [query.location for query in free[:2]] == [
        str(tmp_path / "a.png"),
        str(tmp_path / ".." / "secret.png"),
    ]
    assert free[4].location == "/x y.png"
    assert free[5].error.startswith("ftp:// is not supported")
    assert (free[6].uri, free[6].location) == ("s3://bucket/a b%20?.png", None)
    assert free[7].error == "https:// images are fetched only with allow_http"
    allowed = list(open_manifest(path, ManifestOptions(allow_http=True)).rows())
    assert allowed[7].uri == "https://host/a.png"
    confined = list(open_manifest(path, ManifestOptions(root=str(tmp_path / "root"))).rows())
    assert [query.ok for query in confined] == [True] + [False] * 7
    assert "leaves the root" in confined[1].error
    with pytest.raises(ManifestError, match="no such folder"):
        open_manifest(path, ManifestOptions(root=str(tmp_path / "nowhere")))


def test_options_for_columns_are_refused_where_there_are_none(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ManifestError, match="id_column is for manifests with columns"):
        open_manifest(tmp_path, ManifestOptions(id_column="id"))


def test_file_names_that_are_not_utf8(tmp_path):
    name = b"caf\xe9.png"
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(b"")
    (tmp_path / "m.csv").write_bytes(b"path\n" + name + b"\n")
    for source in (tmp_path, tmp_path / "m.csv"):
        query = next(open_manifest(source).rows())
        assert os.path.exists(query.location)


@settings(max_examples=40)
@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), max_size=20)
)
def test_any_text_survives_jsonl_and_parquet(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("m")
    pq.write_table(pa.table({"path": pa.array(names, pa.string())}), folder / "m.parquet")
    assert [query.path for query in open_manifest(folder / "m.parquet").rows()] == names
    if names:
        (folder / "m.jsonl").write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
        assert [query.path for query in open_manifest(folder / "m.jsonl").rows()] == names


def write_shard(path, names, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name) * 1000
            tar.addfile(member, io.BytesIO(name.encode() * 1000))
    return path


def test_webdataset_shards(tmp_path):
    (tmp_path / "d").mkdir()
    write_shard(tmp_path / "d" / "00.tar", ["a/1.jpg", "a/1.json", "a/1.txt", "a/2.PNG"])
    write_shard(tmp_path / "d" / "01.tar.gz", ["3.webp", "__readme__"], "w:gz")
    for source in (tmp_path / "d", str(tmp_path / "d" / "*.tar*")):
        manifest = open_manifest(source)
        queries = list(manifest.rows())
        assert [(query.row, query.id) for query in queries] == [(0, "a/1"), (1, "a/2"), (2, "3")]
        assert queries[1].path == str(tmp_path / "d" / "00.tar" / "a" / "2.PNG")
        assert queries[1].data == b"a/2.PNG" * 1000
        for start in range(4):
            assert [query.row for query in manifest.rows(start)] == [0, 1, 2][start:]
    assert [query.id for query in open_manifest(tmp_path / "d" / "00.tar").rows()] == ["a/1", "a/2"]
    before = open_manifest(tmp_path / "d").fingerprint
    assert open_manifest(tmp_path / "d").fingerprint == before
    write_shard(tmp_path / "d" / "00.tar", ["a/1.jpg", "a/1.json", "a/1.txt", "b/2.PNG"])
    assert open_manifest(tmp_path / "d").fingerprint != before


def test_a_shard_that_ends_early_is_a_row(tmp_path):
    write_shard(tmp_path / "a.tar", ["1.jpg", "2.jpg", "3.jpg"])
    cut = (tmp_path / "a.tar").read_bytes()[:8000]
    (tmp_path / "a.tar").write_bytes(cut)
    (tmp_path / "b.tar").write_bytes(b"no tar at all")
    write_shard(tmp_path / "c.tar", ["4.jpg"])
    queries = list(open_manifest(tmp_path).rows())
    assert [query.status.value for query in queries] == ["ok", "unreadable", "unreadable", "unreadable", "ok"]
    assert queries[1].path == str(tmp_path / "a.tar" / "2.jpg")
    assert queries[2].path == str(tmp_path / "a.tar")
    assert "can't be read on" in queries[2].error
    assert [query.row for query in queries] == [0, 1, 2, 3, 4]
    # Whether a row's content was read makes no difference to the rows after it.
    for start in range(6):
        assert [query.row for query in open_manifest(tmp_path).rows(start)] == list(range(start, 5))


@pytest.mark.parametrize("damage", ["flip", "cut at a border", "cut in a header"])
def test_a_shard_with_a_damaged_header_is_noticed(tmp_path, damage):
    data = bytearray(write_shard(tmp_path / "a.tar", [f"{index}.jpg" for index in range(9)]).read_bytes())
    border = data.index(b"4.jpg\0")
    if damage == "flip":
        data[border] ^= 1
    else:
        data = data[: border + (100 if damage == "cut in a header" else 0)]
    (tmp_path / "a.tar").write_bytes(data)
    queries = list(open_manifest(tmp_path).rows())
    assert [query.status.value for query in queries] == ["ok"] * 4 + ["unreadable"]


def test_a_damaged_compressed_shard_is_noticed(tmp_path):
    data = bytearray(write_shard(tmp_path / "a.tar.gz", [f"{index}.jpg" for index in range(9)], "w:gz").read_bytes())
    data[-6] ^= 1  # in the checksum at its end
    (tmp_path / "a.tar.gz").write_bytes(data)
    assert list(open_manifest(tmp_path).rows())[-1].status == Status.UNREADABLE


def test_other_content_is_another_manifest(tmp_path):
    def fingerprint(names, **options):
        pq.write_table(pa.table({"path": names}), tmp_path / "m.parquet", **options)
        return open_manifest(tmp_path / "m.parquet").fingerprint

    first = fingerprint(["0.png", "1.png", "2.png", "3.png"])
    assert fingerprint(["0.png", "2.png", "1.png", "3.png"]) != first
    assert fingerprint(["0.png", "1.png2.png", "", "3.png"]) != first
    assert fingerprint(["0.png", "1.png", "2.png", "3.png"], row_group_size=2) == first
    images = [
        open_manifest(folder).folder for folder in (tmp_path / "a", tmp_path / "b")
        if not folder.mkdir() and not (folder / "0.png").write_bytes(b"")
    ]  # fmt: skip
    assert images[0] != images[1]


def test_a_folder_of_several_kinds_is_not_guessed_at(tmp_path):
    (tmp_path / "0.png").touch()
    pq.write_table(pa.table({"path": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(ManifestError, match="holds Parquet files and images; say which with a quoted glob"):
        open_manifest(tmp_path)
    assert open_manifest(str(tmp_path / "*.parquet")).num_rows == 1
    (tmp_path / "t.parquet").unlink()
    for name, mark in (
        ("model.pscr", "bundle.json"),
        ("scores", "_run.json"),
        ("old-scores", "run.json"),
        (".cache", "x"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / mark).touch()
        pq.write_table(pa.table({"path": ["x"]}), tmp_path / name / "part-000000.parquet")
    assert [query.path for query in open_manifest(tmp_path).rows()] == ["0.png"]


def test_text_that_is_no_path_is_a_row(tmp_path):
    values = ["http://[oops/a.png", "file:///a%00b.png", "a\0b.png", "\ud800.png"]
    path = write(tmp_path, "jsonl", [{"path": value, "id": value} for value in values])
    queries = list(open_manifest(path, ManifestOptions(root=str(tmp_path))).rows())
    for query in queries:
        read_file(query)
    assert {query.status.value for query in queries} <= {"unreadable", "missing"}
    table = to_table(queries, output_schema(pa.string(), None))
    assert table.column("row").to_pylist() == [0, 1, 2, 3]
    column = pa.array([b"caf\xe9.png"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"path": column}), tmp_path / "m.parquet")
    assert next(open_manifest(tmp_path / "m.parquet").rows()).path == "caf\udce9.png"


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "dataset", "directory", "tar"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranges=st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 400)), max_size=6))
def test_ranges_are_read_in_any_order(shared_manifests, kind, ranges):
    """Read any set of ranges, as a worker may get; as a rule they ascend."""
    manifest = shared_manifests[kind]
    whole = [query.path for query in manifest.rows()]
    assert len(whole) == 1000
    reader = manifest.reader()
    for start, length in ranges:
        queries = list(reader.read(range(start, start + length)))
        assert [query.path for query in queries] == whole[start : start + length]
        assert [query.row for query in queries] == list(range(start, min(1000, start + length)))


@pytest.fixture(scope="module")
def shared_manifests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    names = [f"{row:04d}.png" for row in range(1000)]
    (folder / "m.csv").write_text("path\n" + "\n".join(names))
    (folder / "m.jsonl").write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
    pq.write_table(pa.table({"path": names}), folder / "m.parquet", row_group_size=300)
    for part in ("dataset", "directory", "tar"):
        (folder / part).mkdir()
    for start in range(0, 1000, 350):
        table = pa.table({"path": names[start : start + 350]})
        pq.write_table(table, folder / "dataset" / f"{start:04d}.parquet", row_group_size=270)
        write_shard(folder / "tar" / f"{start:04d}.tar", names[start : start + 350])
    for name in names:
        (folder / "directory" / name).touch()
    sources = {"csv": "m.csv", "jsonl": "m.jsonl", "parquet": "m.parquet"}
    return {kind: open_manifest(folder / sources.get(kind, kind)) for kind in (*sources, "dataset", "directory", "tar")}


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (pa.timestamp("ns"), [1, 1_700_000_000_000_000_001, None]),
        (pa.duration("ns"), [1, 2, None]),
        (pa.time64("ns"), [1, 999, None]),
        (
            pa.struct([("a", pa.int64()), ("bytes", pa.string())]),
            [{"a": 1, "bytes": "x"}, None, {"a": None, "bytes": ""}],
        ),
        (pa.list_(pa.int8()), [[1], [], None]),
        (pa.string_view(), ["a", None, "c"]),
        (pa.binary(), [b"1", None, b""]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None]),
        (pa.decimal128(20, 3), [Decimal("1.005"), None, Decimal("2")]),
        (pa.float16(), [1.5, None, 2.0]),
    ],
)
def test_identifiers_of_any_type_come_out_as_they_went_in(tmp_path, type_, values):
    ids = pa.array(values, pa.int64()).cast(type_) if pa.types.is_temporal(type_) else pa.array(values, type_)
    pq.write_table(pa.table({"path": ["2", "1", "0"], "id": ids}), tmp_path / "m.parquet")
    manifest = open_manifest(tmp_path / "m.parquet")
    schema = output_schema(manifest.id_type, None)
    table = in_order([to_table([query], schema) for query in reversed(list(manifest.rows()))])
    assert table.column("row").to_pylist() == [0, 1, 2]
    expected = ids if table.column("id").type == type_ else ids.cast(table.column("id").type)
    assert table.column("id").combine_chunks().equals(expected)


def test_a_list_that_changes_under_the_run_is_noticed(tmp_path):
    for kind in ("csv", "jsonl", "parquet"):
        manifest = open_manifest(path := write(tmp_path, kind))
        manifest.check_unchanged()
        write(tmp_path, kind, [*ROWS, ROWS[0]])
        with pytest.raises(ManifestError, match=f"m.{kind}: has changed since the run began"):
            manifest.check_unchanged()
        path.unlink()
        with pytest.raises(ManifestError, match="has changed"):
            manifest.check_unchanged()


def test_large_embedded_images_are_read_a_few_at_a_time(tmp_path):
    images = [bytes([row]) * 2**20 for row in range(40)]
    pq.write_table(pa.table({"image": images}), tmp_path / "m.parquet", compression="none", use_dictionary=False)
    reader: Any = open_manifest(tmp_path / "m.parquet").reader()
    queries = reader.read(range(40))
    assert next(queries).data == images[0]
    assert reader._groups._batch.num_rows <= 32
    assert [query.data for query in queries] == images[1:]


def test_links_in_shards_and_folders(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"1")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.png").write_bytes(b"2")
    (tmp_path / "d" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "d" / "round").symlink_to(tmp_path / "d")
    assert [query.path for query in open_manifest(tmp_path / "d").rows()] == ["b.png", "link/a.png"]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "real" / "a.png", "a.png")
        for kind, name in ((tarfile.LNKTYPE, "hard.png"), (tarfile.SYMTYPE, "soft.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png"
            tar.addfile(member)
    queries = list(open_manifest(tmp_path / "s.tar").rows())
    assert [query.status.value for query in queries] == ["ok", "unreadable", "unreadable"]
    assert queries[1].error == "a link to a.png; pack shards with the files themselves"


def test_globs_of_tables_and_columns_that_are_there_twice(tmp_path):
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text("path\nx\n")
    with pytest.raises(ManifestError, match=r"glob .*: matches the table .*1\.csv; name one table"):
        open_manifest(str(tmp_path / "*.csv"))
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["path", "path"])
    pq.write_table(twice, tmp_path / "m.PARQUET")
    with pytest.raises(ManifestError, match="has several columns named 'path'"):
        open_manifest(tmp_path / "m.PARQUET")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "n.PARQUET")
    assert open_manifest(str(tmp_path / "n.PARQ*")).num_rows == 1
