"""Prefixes with keys that obstore can't ask for: each is a row, and the others are scored."""

from __future__ import annotations

import boto3
import pytest

from pscr_engine.errors import ManifestError
from pscr_engine.manifests import open_manifest
from pscr_engine.stores.odd_keys import oddity
from pscr_engine.stores.uri import StorePath

from ..helpers.images import encoded, pixels
from ..helpers.object_store import LISTED_AT_ONCE
from ..helpers.tiny import make_bundle
from .test_stored import parquet

ODD = ["p//x.png", "p/./y.png", "p/../z.png", "p/a\x01b.png"]
GOOD = ["p/a.png", "p/x.png", "p/sub/c d%20.png", "p/é.png", "p/~.png"]


@pytest.fixture
def put(bucket):
    client = boto3.client("s3", endpoint_url=bucket.endpoint.url, region_name="us-east-1")
    return lambda key, data=b"x": client.put_object(Bucket=bucket.name, Key=key, Body=data)


@pytest.mark.parametrize("odd", [*[[key] for key in ODD], ODD])
def test_an_odd_key_is_a_row_and_the_rest_is_read(bucket, put, odd):
    for key in [*GOOD, *odd]:
        put(key)
    keys = sorted([*GOOD, *odd], key=str.encode)
    rows = list(open_manifest(f"{bucket.uri}/p").rows())
    assert [query.path for query in rows] == [key.removeprefix("p/") for key in keys]
    assert [query.status.value for query in rows] == ["unreadable" if key in odd else "ok" for key in keys]
    assert {query.uri for query in rows if query.ok} == {f"{bucket.uri}/{key}" for key in GOOD}
    for query in rows:
        assert query.ok or (query.uri is None and "can't be asked for; copy it to another key" in query.error)
    rows = list(open_manifest(f"{bucket.uri}/p/*.png").rows())
    assert len([query for query in rows if query.ok]) == 4


def test_a_long_listing_goes_on_where_it_stopped(bucket, put):
    pages = 2
    for index in range(pages * LISTED_AT_ONCE + 5):
        bucket.put(f"p/{index:04d}.png", b"x")
    put("p/0150//x.png")
    rows = list(open_manifest(f"{bucket.uri}/p").rows())
    assert len(rows) == pages * LISTED_AT_ONCE + 6
    assert [query.path for query in rows] == sorted(query.path or "" for query in rows)
    assert [query.path for query in rows if not query.ok] == ["0150//x.png"]


@pytest.mark.parametrize("twin", ["/b.png", "b.png/"])
def test_keys_that_read_alike_are_refused(bucket, put, twin):
    for key in ("a.png", "b.png", "c.png"):
        put(key)
    assert len(list(open_manifest(bucket.uri).rows())) == 3
    put(twin)
    with pytest.raises(ManifestError, match=r"two keys read 'b\.png', one of them with a slash before or behind it"):
        open_manifest(bucket.uri)


def test_tables_beside_odd_keys(bucket, put):
    bucket.put("t/0.parquet", parquet(path=["a.png"]))
    put("t//note.txt")
    manifest = open_manifest(f"{bucket.uri}/t")
    assert [query.path for query in manifest.rows()] == ["a.png"]
    manifest.check_unchanged()
    put("t//1.parquet", parquet(path=["b.png"]))
    with pytest.raises(ManifestError, match=r"t//1\.parquet': its key has an empty segment, so that it can't be read"):
        open_manifest(f"{bucket.uri}/t")


def test_lists_that_name_such_keys(bucket, tmp_path):
    names = [f"{bucket.uri}//x.png", f"{bucket.uri}/a//x.png", f"{bucket.uri}/a/../x.png", f"{bucket.uri}/x.png/"]
    (tmp_path / "m.csv").write_text("path\n" + "".join(f"{name}\n" for name in [*names, f"{bucket.uri}/x.png"]))
    rows = list(open_manifest(tmp_path / "m.csv").rows())
    assert [query.status.value for query in rows] == ["unreadable"] * 4 + ["ok"]
    assert "begins with a slash" in rows[0].error
    assert "ends with a slash" in rows[3].error


def test_what_is_odd():
    assert not any(map(oddity, [*GOOD, "..a/b", "a.", "\\x", "a b"]))
    assert all(map(oddity, [*ODD, "/x", "x/", "a\tb", "a\x7fb"]))
    with pytest.raises(ValueError, match="begins with a slash"):
        StorePath.parse("s3://b//x")


@pytest.mark.slow
def test_a_run_over_odd_keys(bucket, put, start, tmp_path):
    make_bundle(tmp_path / "model.pscr")
    for index, key in enumerate([*GOOD, *ODD]):
        put(key, encoded(pixels(40, 40, index)))
    command = (
        "score",
        "--manifest",
        f"{bucket.uri}/p",
        "--bundle",
        "model.pscr",
        "--devices",
        "cpu",
        "--max-failure-rate",
        "0.5",
    )
    process = start(*command)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "scores" / "part-000000.parquet")
    assert sorted(table["status"].to_pylist()) == ["ok"] * 5 + ["unreadable"] * 4
