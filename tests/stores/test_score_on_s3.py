"""`pscr-engine score` on a real S3 endpoint: whole commands, real processes."""

from __future__ import annotations

import io
import itertools
import json
import re
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..images import encoded, pixels
from ..tiny import expected_score, make_bundle
from .servers import now_and_then

ROWS = 60


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "model.pscr")


def upload_images(bucket, count=20):
    for index in range(count):
        bucket.put(f"images/{index:03d}.png", encoded(pixels(40, 50, index)))


def parquet(columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=16)
    return buffer.getvalue()


def table_at(bucket, prefix):
    parts = [key for key in bucket.keys(prefix) if key.endswith(".parquet")]
    return pa.concat_tables(pq.read_table(io.BytesIO(bucket.get(key))) for key in parts).to_pylist()


def assert_scores(rows, model):
    for row in rows:
        index = int(re.search(r"(\d+)\.png", row["path"])[1])
        assert row["score"] == pytest.approx(expected_score(model, pixels(40, 50, index)), abs=1e-5)


def test_all_of_a_run_on_a_store(command, bucket, model, tmp_path):
    upload_images(bucket)
    for file in model.path.iterdir():
        bucket.put(f"models/tiny/{file.name}", file.read_bytes())
    names = [f"../images/{row % 20:03d}.png" for row in range(ROWS)]
    bucket.put("lists/m.parquet", parquet({"path": names, "id": range(ROWS)}))
    arguments = ["score", "--manifest", f"{bucket.uri}/lists/m.parquet", "--bundle", f"{bucket.uri}/models/tiny"]
    arguments += ["--out", f"{bucket.uri}/scores", "--chunk-rows", 25]
    outcome = command(*arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.splitlines()[-1] == f"scores: {bucket.uri}/scores/part-*.parquet"
    assert bucket.keys("scores") == [
        f"scores/{name}"
        for name in ("_SUCCESS", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet", "run.json")
    ]
    rows = table_at(bucket, "scores")
    assert [row["row"] for row in rows] == [row["id"] for row in rows] == list(range(ROWS))
    assert_scores(rows, model)
    assert json.loads(bucket.get("scores/_SUCCESS"))["status"] == {"ok": ROWS}
    assert [folder.name for folder in (tmp_path / "cache/pscr-engine/bundles").iterdir() if folder.is_dir()] == [
        model.digest
    ]
    again = command(*arguments)
    assert again.returncode == 0
    assert "is complete already" in again.stderr
    other = command(*arguments[:-1], 30)
    assert other.returncode == 2
    assert "holds a run with another chunk rows (25, now 30)" in other.stderr


def test_a_tenth_of_the_requests_refused(command, bucket, model, proxy):
    upload_images(bucket)
    names = [f"{bucket.uri}/images/{row % 20:03d}.png" for row in range(ROWS)]
    bucket.put("m.parquet", parquet({"path": names}))
    arguments = ["score", "--manifest", f"{bucket.uri}/m.parquet", "--chunk-rows", 10]
    plain = command(*arguments, "--out", f"{bucket.uri}/plain")
    assert plain.returncode == 0, plain.stderr
    proxy.rule = now_and_then(0.1, "503")
    outcome = command(*arguments, "--out", f"{bucket.uri}/refused", url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    assert proxy.spoilt["503"] >= 3
    for key in bucket.keys("plain"):
        if key.endswith(".parquet"):
            assert bucket.get(key) == bucket.get(key.replace("plain", "refused"))


@pytest.mark.parametrize("trouble", ["truncate", "drop", "429", "500"])
def test_other_troubles_now_and_then(command, bucket, model, proxy, trouble):
    upload_images(bucket)
    proxy.rule = now_and_then(0.2, trouble)
    arguments = ["score", "--manifest", f"{bucket.uri}/images", "--chunk-rows", 7, "--out", f"{bucket.uri}/out"]
    outcome = command(*arguments, url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    assert proxy.spoilt[trouble] >= 2
    rows = table_at(bucket, "out")
    assert [row["path"] for row in rows] == [f"{index:03d}.png" for index in range(20)]
    assert_scores(rows, model)


def test_what_stays_bad_is_a_row(command, bucket, model, proxy, tmp_path):
    upload_images(bucket, 4)
    bucket.put("images/broken.png", encoded(pixels(40, 50))[:60])
    names = ["000.png", "gone.png", "001.png", "broken.png", "002.png", "003.png", f"{bucket.uri}/a//b.png"]
    names += ["../../up.png", "s3://", "gs://", f"{bucket.uri}/elsewhere.png"]
    (tmp_path / "m.csv").write_text("path\n" + "\n".join(names) + "\n")
    proxy.rule = lambda method, path: "403" if "001" in path else "truncate" if "002" in path else None
    arguments = ["score", "--manifest", "m.csv", "--root", f"{bucket.uri}/images", "--out", f"{bucket.uri}/out"]
    outcome = command(*arguments, url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    rows = table_at(bucket, "out")
    assert [row["status"] for row in rows] == [
        "ok", "missing", "unreadable", "undecodable", "unreadable", "ok", *["unreadable"] * 5,
    ]  # fmt: skip
    assert rows[1]["error"] == f"{bucket.uri}/images/gone.png: 404 NoSuchKey"
    assert rows[2]["error"].startswith(f"{bucket.uri}/images/001.png: 403 ")
    assert rows[4]["error"].endswith("002.png: HTTP error: request or response body error")
    assert [row["error"] for row in rows[7:]] == [
        f"not a path or URI: ../../up.png: leads out of {bucket.uri}",
        "not a path or URI: s3://: names no bucket",
        "not a path or URI: gs://: names no bucket",
        f"the path leaves --root {bucket.uri}/images",
    ]


def test_a_part_put_that_fails_half_way(command, bucket, model, proxy):
    """Once it is tried again; if it fails for good, nothing of it is to be seen, and the same command goes on."""
    upload_images(bucket)
    arguments = ["score", "--manifest", f"{bucket.uri}/images", "--chunk-rows", 5, "--out", f"{bucket.uri}/out"]
    spoilt = []

    def once(method, path):
        if method == "PUT" and "part-000001" in path and not spoilt:
            spoilt.append(path)
            return "half"
        return None

    proxy.rule = once
    outcome = command(*arguments[:-1], f"{bucket.uri}/once", url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    assert spoilt
    proxy.rule = lambda method, path: "half" if method == "PUT" and "part-000001" in path else None
    begun = time.monotonic()
    failed = command(*arguments, url=proxy.url)
    print(time.monotonic() - begun, failed.stderr)
    assert failed.returncode == 1
    assert bucket.keys("out") == ["out/part-000000.parquet", "out/run.json"]
    proxy.rule = lambda method, path: None
    outcome = command(*arguments, url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    for index in range(4):
        name = f"part-{index:06d}.parquet"
        assert bucket.get(f"out/{name}") == bucket.get(f"once/{name}")


def test_a_store_that_refuses_everything_ends_the_run(command, bucket, model, proxy, tmp_path):
    """In one line, without a part, instead of calling all images unreadable; then the same command goes on."""
    upload_images(bucket)
    (tmp_path / "m.csv").write_text("path\n" + "".join(f"{row % 20:03d}.png\n" for row in range(300)))
    arguments = ["score", "--manifest", "m.csv", "--root", f"{bucket.uri}/images", "--chunk-rows", 15]
    proxy.rule = lambda method, path: "403"
    refused = command(*arguments, url=proxy.url)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        f"error: {bucket.uri}: images can't be read from there (403 Forbidden); check the network, and the "
        "credentials, region and endpoint in the environment, and give the same command again to go on"
    )
    assert not list((tmp_path / "scores").glob("part-*"))
    unreachable = command(*arguments, url="http://127.0.0.1:9")
    assert unreachable.returncode == 1
    assert re.search(r"images can't be read from there \(HTTP error: .*6 retries\)", unreachable.stderr)
    # In the middle: credentials that expire.
    images = itertools.count()
    proxy.rule = lambda method, path: "403" if "list-type" in path or next(images) >= 200 else None
    expired = command(*arguments, url=proxy.url)
    assert expired.returncode == 1, expired.stdout
    assert "images can't be read from there (403 Forbidden)" in expired.stderr
    assert 2 <= len(list((tmp_path / "scores").glob("part-*"))) < 20
    outcome = command(*arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads((tmp_path / "scores" / "_SUCCESS").read_text())["status"] == {"ok": 300}


def test_a_few_images_of_somebody_else_are_rows(command, bucket, model, proxy, tmp_path):
    upload_images(bucket)
    names = [f"{bucket.uri}/images/{row:03d}.png" for row in range(10)] + ["s3://another-bucket-of-theirs/a.png"] * 3
    (tmp_path / "m.csv").write_text("path\n" + "\n".join(names) + "\n")
    proxy.rule = lambda method, path: "403" if "theirs" in path else None
    outcome = command("score", "--manifest", "m.csv", url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("13 rows: 10 ok, 3 unreadable")


def test_without_credentials(command, bucket, model):
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}
    outcome = command("score", "--manifest", f"{bucket.uri}/m.parquet", **nobody)
    assert outcome.returncode == 1
    assert "no AWS credentials in the environment" in outcome.stderr
    assert "can't read it (no credentials in the environment, after " in outcome.stderr
