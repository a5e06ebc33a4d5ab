"""What users name as a list, and what its rows hold: understood in full, or told in one line."""

from __future__ import annotations

import base64
import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine.errors import ManifestError, UsageError
from pscr_engine.manifests import ManifestOptions, open_manifest
from pscr_engine.scoring import queries_of
from pscr_engine.stores.uri import path_of_file_uri, place

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle
from .test_nothing_is_lost import rows_of, tar_of
from .test_stored import tar

PNG = encoded(pixels(40, 40))
BASE64 = base64.b64encode(PNG).decode()


def test_a_pipe_is_no_list(cli, tmp_path):
    os.mkfifo(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match=r"m\.csv: not a regular file: the list is read more than once; write it"):
        open_manifest(tmp_path / "m.csv")
    read, write = os.pipe()
    try:
        with pytest.raises(ManifestError, match="not a regular file"):
            open_manifest(f"/dev/fd/{read}")
    finally:
        os.close(read)
        os.close(write)
    outcome = cli("score", "--manifest", "m.csv")
    assert outcome.returncode == 2
    assert "m.csv: not a regular file" in outcome.stderr


def test_brace_ranges_are_shards_in_their_order(tmp_path):
    for number in range(9, 12):
        (tmp_path / f"s-{number:05d}.tar").write_bytes(tar_of([f"{number}.jpg"]))
    manifest = open_manifest(tmp_path / "s-{00009..00011}.tar")
    assert [query.id for query in manifest.rows()] == ["9", "10", "11"]
    assert manifest.fingerprint == open_manifest(f"{tmp_path}/s-*.tar").fingerprint
    (tmp_path / "a1-b2.tar").write_bytes(tar_of(["x.jpg"]))
    assert [query.id for query in rows_of(tmp_path / "a{1..1}-b{2..2}.tar")] == ["x"]
    for name, message in {
        "s-{00009..00012}.tar": r"there is no .*s-00012\.tar; every shard",
        "s-{9..11}.tar": r"there is no .*s-9\.tar",
        "s-{00011..00009}.tar": "runs backwards",
        "s-{0..9999999}.tar": "is too long",
        "s-{0..9}.parquet": "brace ranges are for tar shards",
    }.items():
        with pytest.raises(ManifestError, match=message):
            open_manifest(tmp_path / name)
    (tmp_path / "{0..1}.tar").write_bytes(tar_of(["named so.jpg"]))
    assert [query.id for query in rows_of(tmp_path / "{0..1}.tar")] == ["named so"]


def test_brace_ranges_of_a_store(bucket):
    for number in range(2):
        bucket.put(f"s/{number:03d}.tar", tar([f"{number}.png"]))
    assert [query.id for query in rows_of(f"{bucket.uri}/s/{{000..001}}.tar")] == ["0", "1"]
    with pytest.raises(ManifestError, match=r"there is no s3://.*/s/002\.tar"):
        open_manifest(f"{bucket.uri}/s/{{000..002}}.tar")


def test_the_globs_that_are_advised_match(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "A.TAR.gz").write_bytes(gzip.compress(tar_of(["1.jpg"])))
    pq.write_table(pa.table({"path": ["x"]}), tmp_path / "sub" / "t.parquet")
    with pytest.raises(ManifestError, match="holds Parquet files and tar shards; say which") as raised:
        open_manifest(tmp_path)
    globs = str(raised.value).split("'")[1::2]
    assert [open_manifest(glob).kind for glob in globs] == ["parquet", "webdataset"]


def test_what_is_no_tar_file_is_told_in_a_few_words(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    (query,) = rows_of(tmp_path / "a.tar")
    assert query.error == "the shard can't be read on from here: it is no tar file, compressed or not"


def test_identifiers_that_are_no_text_are_json(tmp_path):
    ids = [{"a": ["é", None]}, [1, 2.5], True, 7, "x", None]
    lines = (json.dumps({"path": "a", "id": value}) + "\n" for value in ids)
    (tmp_path / "m.jsonl").write_text("".join(lines))
    found = [query.id for query in rows_of(tmp_path / "m.jsonl")]
    assert found == ['{"a": ["é", null]}', "[1, 2.5]", "true", "7", "x", None]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:/a%20b.png", "/a b.png"),
        ("FILE:///a#b?.png", "/a#b?.png"),
        ("file://localhost/a.png", "/a.png"),
        ("file:///caf%E9.png", "/caf\udce9.png"),
    ],
)
def test_file_uris(tmp_path, uri, path):
    assert path_of_file_uri(uri) == path
    assert str(place(uri, "--out")) == path
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": uri}) + "\n")
    (query,) = rows_of(tmp_path / "m.jsonl")
    assert query.location == path
    assert next(queries_of([uri])).location == path


def test_uris_that_name_no_file_of_this_host(tmp_path):
    (tmp_path / "m.csv").write_text("path\nfile://a.png\nfile://\nfile://host/a.png\n")
    assert [query.status.value for query in rows_of(tmp_path / "m.csv")] == ["unreadable"] * 3
    with pytest.raises(UsageError, match=r"--out file://host/a: names the host 'host'; write file:///PATH"):
        place("file://host/a", "--out")
    confined = rows_of(tmp_path / "m.csv", ManifestOptions(root=str(tmp_path)))
    assert not any(query.ok for query in confined)


def test_uris_in_python_are_those_of_a_list():
    uris = ["http://host/a.png", "ftp://host/a.png", "s3://b/a.png", "s3://b//a.png", "a.png"]
    web, ftp, stored, odd, plain = queries_of(uris)
    assert web.error == "http:// images are fetched only by runs over a manifest; give the bytes"
    assert ftp.error.startswith("ftp:// is not supported")
    assert (stored.uri, plain.location) == ("s3://b/a.png", "a.png")
    assert not odd.ok
    assert next(queries_of([f"data:image/png;base64,{BASE64}"])).data == PNG


def test_images_in_text(tmp_path):
    big = "A" * 6000
    values = [
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/svg+xml;charset=utf-8;base64,{BASE64}",
        f"data:image/png;base64,{BASE64[:-3]}",
        "data:image/png;base64,",
        f"data:text/plain;base64,{BASE64}",
        "data:image/png,xyz",
        big,
        f"{BASE64[:70]}\n" * 100,
        "data/a.png",
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"path": value}) + "\n" for value in values))
    pq.write_table(pa.table({"path": values}), tmp_path / "m.parquet")
    for name in ("m.jsonl", "m.parquet"):
        rows = rows_of(tmp_path / name)
        assert [query.data for query in rows[:2]] == [PNG, PNG]
        assert [query.status.value for query in rows] == ["ok"] * 2 + ["unreadable"] * 6 + ["ok"]
        assert "malformed" in rows[2].error
        assert "without an image" in rows[3].error
        assert "no image in base64" in rows[4].error
        assert "base64, not a path" in rows[6].error
        assert all(len(query.path) < 90 for query in rows)
        assert rows[0].path == f"{values[0][:40]}... ({len(values[0]):,} characters)"


@pytest.mark.slow
def test_a_run_over_no_rows_has_a_part_with_columns(cli, tmp_path):
    make_bundle(tmp_path / "model.pscr")
    (tmp_path / "m.csv").write_text("path,id\n")
    command = ("score", "--manifest", "m.csv", "--bundle", "model.pscr", "--devices", "cpu", "--features")
    for _ in range(2):
        outcome = cli(*command)
        assert outcome.returncode == 0, outcome.stderr
        assert "damaged" not in outcome.stderr
    table = pq.read_table(tmp_path / "scores" / "part-000000.parquet")
    assert (len(table), table.column_names[:3]) == (0, ["row", "id", "path"])
    assert table.column_names[-2:] == ["features", "stamp"]
    for reader in ("report", "select"):
        outcome = cli(reader, "scores", *(("--top", "1") if reader == "select" else ()))
        assert "Traceback" not in outcome.stderr
        assert outcome.stderr.count("\n") <= 1, outcome.stderr
