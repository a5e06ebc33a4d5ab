"""Manifests in a store: the same rows as from the same files on disk, and no more of them in memory."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine.errors import ManifestError, StoreError, UsageError
from pscr_engine.manifests import ManifestOptions, open_manifest

from ..helpers.images import encoded, pixels

NAMES = [f"{index:03d}.png" for index in range(30)]


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=7)
    return buffer.getvalue()


def tar(names, data=b"x" * 3000):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def seen(rows):
    return [
        (query.row, query.path and query.path.rpartition("//")[2], query.id, query.data, query.status) for query in rows
    ]


FILES = {
    "m.csv": ("path,id\n" + "".join(f"{name},{name[:3]}\n" for name in NAMES)).encode(),
    "m.tsv": ("path\tid\n" + "".join(f"{name}\t{name[:3]}\n" for name in NAMES)).encode(),
    "m.jsonl": "".join(json.dumps({"path": name, "id": name[:3]}) + "\n" for name in NAMES).encode(),
    "m.parquet": parquet(path=NAMES, id=NAMES),
    "embedded.parquet": parquet(image=[{"bytes": name.encode(), "path": name} for name in NAMES]),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_rows_as_from_disk(bucket, tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    bucket.put(f"a b/{name}", FILES[name])
    local, stored = open_manifest(tmp_path / name), open_manifest(f"{bucket.uri}/a b/{name}")
    assert seen(stored.rows()) == seen(local.rows())
    assert stored.num_rows == local.num_rows
    assert stored.folder == f"{bucket.uri}/a b"
    stored.check_unchanged()
    copy = pickle.loads(pickle.dumps(stored))  # as worker processes get it
    assert seen(copy.reader().read(range(5, 9))) == seen(local.rows())[5:9]
    if name != "embedded.parquet":
        assert next(stored.rows()).uri == f"{bucket.uri}/a b/000.png"
    bucket.put(f"a b/{name}", FILES[name] + b"\n")
    with pytest.raises(ManifestError, match="has changed since the run began"):
        stored.check_unchanged()


def test_a_manifest_that_changes_while_it_is_read(bucket):
    bucket.put("m.parquet", FILES["m.parquet"])
    manifest = open_manifest(f"{bucket.uri}/m.parquet")
    bucket.put("m.parquet", parquet(path=NAMES[::-1], id=NAMES))
    with pytest.raises(ManifestError, match="has changed since the run began"):
        list(manifest.rows())


def test_prefixes_and_globs(bucket):
    keys = ["p/a.png", "p/sub/b.jpg", "p/.hidden/c.png", "p/notes.txt", "p/out/run.json", "p/out/d.png"]
    keys += ["p/new/_run.json", "p/new/d.png"]
    keys += ["p/m.pscr/bundle.json", "p/m.pscr/e.png", "p2/f.png", "p/sub/.g.png"]
    for key in keys:
        bucket.put(key, b"x")
    for uri in (f"{bucket.uri}/p", f"{bucket.uri}/p/"):
        manifest = open_manifest(uri)
        assert [query.uri for query in manifest.rows()] == [
            f"{bucket.uri}/p/{name}" for name in ("a.png", "sub/.g.png", "sub/b.jpg")
        ]
        assert [query.path for query in manifest.rows()] == ["a.png", "sub/.g.png", "sub/b.jpg"]
        assert manifest.num_rows == 3
    in_all_folders = ["a.png", "m.pscr/bundle.json", "m.pscr/e.png", "new/_run.json", "new/d.png", "notes.txt"]
    in_all_folders += ["out/d.png", "out/run.json"]
    for pattern, names in {
        "p/*.png": ["a.png"],
        "p/**/*.png": ["a.png", "m.pscr/e.png", "new/d.png", "out/d.png"],
        "p/*/?.jpg": ["sub/b.jpg"],
        "p*/[a-f].png": ["p/a.png", "p2/f.png"],
        "p/**": [*in_all_folders, "sub/b.jpg"],
    }.items():
        assert [query.path for query in open_manifest(f"{bucket.uri}/{pattern}").rows()] == names, pattern
    with pytest.raises(ManifestError, match="matches no objects"):
        open_manifest(f"{bucket.uri}/q/*.png")
    with pytest.raises(ManifestError, match="no such object, and no Parquet files"):
        open_manifest(f"{bucket.uri}/q")
    bucket.put("p/notes.xyz", b"x")
    with pytest.raises(ManifestError, match=r"unknown kind of manifest '\.xyz'"):
        open_manifest(f"{bucket.uri}/p/notes.xyz")
    with pytest.raises(ManifestError, match="id_column is for manifests with columns"):
        open_manifest(f"{bucket.uri}/p", ManifestOptions(id_column="id"))
    bucket.put("p/x.tar", tar(["a.png"]))
    with pytest.raises(ManifestError, match="holds tar shards and images"):
        open_manifest(f"{bucket.uri}/p")


def test_several_parquet_files(bucket, tmp_path):
    for name in ("b/1.parquet", "b/2.parquet", "b/deeper/3.parquet"):
        bucket.put(name, FILES["m.parquet"])
    manifest = open_manifest(f"{bucket.uri}/b")
    assert manifest.num_rows == 90
    assert [query.path for query in manifest.rows()] == NAMES * 3
    assert next(manifest.rows()).uri == f"{bucket.uri}/b/000.png"
    assert open_manifest(f"{bucket.uri}/b/*.parquet").num_rows == 60
    before = manifest.fingerprint
    bucket.put("b/2.parquet", parquet(path=NAMES[::-1], id=NAMES))
    assert open_manifest(f"{bucket.uri}/b").fingerprint != before


def test_shards_are_streamed(bucket):
    """Check that what is passed over is not fetched, and what is read is not kept."""
    data = b"\0" * 400_000
    for name in ("0.tar", "1.tar"):
        bucket.put(f"shards/{name}", tar([f"{name[0]}-{index}.png" for index in range(100)], data))
    manifest = open_manifest(f"{bucket.uri}/shards/*.tar")
    assert manifest.num_rows is None
    reader = manifest.reader()
    tracemalloc.start()
    count = 0
    for query in reader.read(range(20, 200)):
        assert query.ok
        assert len(query.data) == len(data)
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 180
    assert peak < 40e6  # of 80 MB
    assert next(manifest.rows(150)).path == f"{bucket.uri}/shards/1.tar/1-50.png"


def test_a_shard_that_goes_is_a_row(bucket):
    for name in ("0.tar", "1.tar"):
        bucket.put(f"shards/{name}", tar(["a.png"]))
    manifest = open_manifest(f"{bucket.uri}/shards")
    bucket.remove("shards/1.tar")
    rows = list(manifest.rows())
    assert [query.status for query in rows] == ["ok", "unreadable"]
    assert "the shard can't be read on from here" in rows[1].error
    with pytest.raises(ManifestError, match="has changed since the run began"):
        manifest.check_unchanged()


def test_reads_are_retried_and_errors_are_one_line(bucket, proxy, monkeypatch):
    from pscr_engine.stores import client

    from ..helpers.object_store import now_and_then

    bucket.put("m.parquet", parquet(path=NAMES * 100, id=NAMES * 100))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    client.bucket_client.cache_clear()
    proxy.rule = now_and_then(0.3, "truncate")
    assert len(list(open_manifest(f"{bucket.uri}/m.parquet").rows())) == 3000
    assert proxy.spoilt["truncate"]
    proxy.rule = lambda method, path: "403"
    with pytest.raises(StoreError, match=r"m\.parquet: can't read it \(403 Forbidden\); check the credentials"):
        open_manifest(f"{bucket.uri}/m.parquet")


def test_local_lists_of_stored_images_and_the_other_way_round(bucket, tmp_path):
    image = encoded(pixels(40, 50))
    (tmp_path / "x.png").write_bytes(image)
    bucket.put("lists/m.csv", f"path\n{tmp_path / 'x.png'}\nfile://{tmp_path}/x.png\nsub/../y.png\n".encode())
    rows = list(open_manifest(f"{bucket.uri}/lists/m.csv").rows())
    assert [query.location for query in rows] == [str(tmp_path / "x.png")] * 2 + [None]
    assert rows[2].uri == f"{bucket.uri}/lists/y.png"
    confined = open_manifest(f"{bucket.uri}/lists/m.csv", ManifestOptions(root=f"{bucket.uri}/lists"))
    assert [query.ok for query in confined.rows()] == [False, False, True]
    (tmp_path / "m.csv").write_text("path\nx.png\n")
    manifest = open_manifest(tmp_path / "m.csv", ManifestOptions(root=f"{bucket.uri}/images"))
    assert next(manifest.rows()).uri == f"{bucket.uri}/images/x.png"


def test_lists_on_the_web_are_refused():
    with pytest.raises(UsageError, match=r"manifest https://host/m\.parquet: can't be on https://"):
        open_manifest("https://host/m.parquet")
