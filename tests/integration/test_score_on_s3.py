"""`pscr-engine score` on a real S3 endpoint: whole commands, real processes."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..helpers.images import encoded, pixels
from ..helpers.object_store import now_and_then
from ..helpers.tiny import expected_score, make_bundle

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
    arguments += ["--out", f"{bucket.uri}/scores", "--chunk-rows", "25"]
    outcome = command(*arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.splitlines()[-1] == f"scores: {bucket.uri}/scores/part-*.parquet"
    assert bucket.keys("scores") == [
        f"scores/{name}"
        for name in ("_SUCCESS", "_run.json", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet")
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
    other = command(*arguments[:-1], "30")
    assert other.returncode == 2
    assert "holds a run with another chunk rows (25, now 30)" in other.stderr


def test_a_gateway_with_a_path_that_redirects_to_where_objects_are(command, bucket, model, proxy):
    upload_images(bucket)
    for file in model.path.iterdir():
        bucket.put(f"models/tiny/{file.name}", file.read_bytes())
    bucket.put("m.parquet", parquet({"path": [f"images/{row:03d}.png" for row in range(20)]}))
    proxy.namespace = "/my-organisation"
    proxy.rule = lambda method, path: "redirect" if method == "GET" and "?" not in path else None
    arguments = ["score", "--manifest", f"{bucket.uri}/m.parquet", "--bundle", f"{bucket.uri}/models/tiny"]
    arguments += ["--out", f"{bucket.uri}/scores", "--chunk-rows", "7"]
    outcome = command(*arguments, url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    assert proxy.spoilt["redirect"] > 20
    rows = table_at(bucket, "scores")
    assert [row["status"] for row in rows] == ["ok"] * 20
    assert_scores(rows, model)
    again = command(*arguments, url=proxy.url)
    assert "is complete already" in again.stderr


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_on_ray_with_a_tenth_refused_and_a_part_cut_off(command, bucket, model, proxy):
    pytest.importorskip("ray")
    upload_images(bucket)
    for file in model.path.iterdir():
        bucket.put(f"models/tiny/{file.name}", file.read_bytes())
    bucket.put("m.parquet", parquet({"path": [f"{bucket.uri}/images/{row % 20:03d}.png" for row in range(1000)]}))
    refuse, cut = now_and_then(0.1, "503"), itertools.count()

    def rule(method, path):
        if method == "PUT" and "part-000003" in path and next(cut) == 0:
            return "half"
        return refuse(method, path)

    proxy.rule = rule
    arguments = ["score", "--manifest", f"{bucket.uri}/m.parquet", "--bundle", f"{bucket.uri}/models/tiny"]
    ray = ["--runner", "ray", "--ray-address", "local", "--cpus-per-worker", 1]
    out = f"{bucket.uri}/scores"
    outcome = command(*arguments, "--out", out, "--chunk-rows", 100, *ray, url=proxy.url, RAY_USAGE_STATS_ENABLED="0")
    assert outcome.returncode == 0, outcome.stderr
    assert proxy.spoilt["503"] > 60
    assert proxy.spoilt["half"] == 1
    rows = table_at(bucket, "scores")
    assert [row["row"] for row in rows] == list(range(1000))
    assert {row["status"] for row in rows} == {"ok"}
    assert_scores(rows[:20] + rows[-20:], model)
    assert json.loads(bucket.get("scores/_SUCCESS"))["rows"] == 1000


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


@pytest.mark.slow
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
        f"the path leaves the root {bucket.uri}/images",
    ]


@pytest.mark.slow
def test_a_part_put_that_fails_half_way(command, bucket, model, proxy):
    """Fail a part's put once: it is tried again. Fail all: nothing of it is seen, and the same command goes on."""
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
    record, *others = bucket.keys("out")  # what this process did, until the run is complete
    assert record.startswith("out/_process-")
    assert others == ["out/_run.json", "out/part-000000.parquet"]
    proxy.rule = lambda method, path: None
    outcome = command(*arguments, url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    for index in range(4):
        name = f"part-{index:06d}.parquet"
        assert bucket.get(f"out/{name}") == bucket.get(f"once/{name}")


@pytest.mark.slow
def test_a_store_that_refuses_everything_ends_the_run(command, bucket, model, proxy, tmp_path):
    """Check that it ends in one line, without a part or unreadable images, and the same command goes on later."""
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


@pytest.mark.slow
def test_shards_on_a_store(start, bucket, model, tmp_path):
    """Kill two shards and stop one; restarted in another number and order, they give the parts of one run."""
    upload_images(bucket)
    rows = 800
    bucket.put("m.parquet", parquet({"path": [f"images/{row % 20:03d}.png" for row in range(rows)]}))
    arguments = ["score", "--manifest", f"{bucket.uri}/m.parquet", "--chunk-rows", 20]
    whole = start(*arguments, "--out", f"{bucket.uri}/whole")
    assert whole.communicate()[0].startswith(f"{rows} rows: {rows} ok")

    def shard(text, **environment):
        return start(*arguments, "--out", f"{bucket.uri}/out", "--shard", text, **environment)

    first = [shard(f"{index}/3") for index in range(3)]
    while sum("part-" in key for key in bucket.keys("out")) < 4:
        time.sleep(0.02)
    first[0].kill()
    first[1].kill()
    first[2].terminate()
    for process in first:
        process.communicate()
    done = len([key for key in bucket.keys("out") if "part-" in key])
    assert 4 <= done < rows / 20
    assert "out/_SUCCESS" not in bucket.keys("out")
    assert "out/.locks/2-of-3" not in bucket.keys("out")  # it had time to say goodbye
    second = [shard(f"{index}/2") for index in (1, 0)]
    outs = [process.communicate() for process in second]
    assert [process.returncode for process in second] == [0, 0], outs
    assert json.loads(bucket.get("out/_SUCCESS"))["status"] == {"ok": rows}
    names = [key.partition("/")[2] for key in bucket.keys("whole")]
    assert [key.partition("/")[2] for key in bucket.keys("out")] == names
    for name in names:
        if name.startswith("part-"):
            assert bucket.get(f"out/{name}") == bucket.get(f"whole/{name}")


@pytest.mark.slow
def test_five_thousand_rows_with_a_tenth_refused_and_the_run_killed(start, command, bucket, model, proxy, tmp_path):
    upload_images(bucket)
    rows = 5000
    names = [f"images/{row % 20:03d}.png" for row in range(rows)]
    bucket.put("m.parquet", parquet({"path": names, "id": range(rows)}))
    arguments = ["score", "--manifest", f"{bucket.uri}/m.parquet", "--chunk-rows", 100, "--out", f"{bucket.uri}/out"]
    proxy.rule = now_and_then(0.1, "503")
    process = start(*arguments, "--devices", "cpu,cpu", url=proxy.url)
    while sum("part-" in key for key in bucket.keys("out")) < 10:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert "out/_SUCCESS" not in bucket.keys("out")
    outcome = command(*arguments, url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    assert "going on with" in outcome.stderr
    assert proxy.spoilt["503"] > 300
    table = table_at(bucket, "out")
    assert [row["row"] for row in table] == [row["id"] for row in table] == list(range(rows))
    assert_scores(table, model)


def test_images_from_the_web(command, tmp_path, model):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    (tmp_path / "a b.png").write_bytes(encoded(pixels(40, 50, 7)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    (tmp_path / "m.csv").write_text(f"path\n{url}/a b.png\n{url}/a%20b.png\n{url}/none.png\n")

    def rows(*flags, code=3):  # nothing scored
        outcome = command("score", "--manifest", "m.csv", "--retry-failed", *flags)
        assert outcome.returncode == code, outcome.stderr
        return pq.read_table(tmp_path / "scores" / "part-000000.parquet").to_pylist()

    assert {row["error"] for row in rows()} == {"http:// images are fetched only with allow_http"}
    refused = rows("--allow-http")
    assert [row["status"] for row in refused] == ["unreadable"] * 3
    assert "127.0.0.1, which is not on the public internet (allow_private_addresses)" in refused[0]["error"]
    allowed = rows("--allow-http", "--allow-private-addresses", code=0)
    assert [row["status"] for row in allowed] == ["ok", "ok", "missing"]
    assert allowed[0]["score"] == pytest.approx(expected_score(model, pixels(40, 50, 7)), abs=1e-5)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "purpose"),
    [
        (["--manifest", "s3://bucket/m.parquet"], "obstore"),
        (["--manifest", "images", "--out", "gs://bucket/out"], "obstore"),
        (["--manifest", "images", "--bundle", "az://bucket/m.pscr"], "obstore"),
        (["--manifest", "stored.csv"], "obstore"),
        (["--manifest", "web.csv", "--allow-http"], "httpcore2"),
    ],
)
def test_what_to_install(command, tmp_path, model, arguments, purpose):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels(40, 50)))
    (tmp_path / "stored.csv").write_text("path\ns3://bucket/a.png\n")
    (tmp_path / "web.csv").write_text("path\nhttp://example.invalid/a.png\n")
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "sitecustomize.py").write_text(
        "import sys; sys.modules['obstore'] = sys.modules['httpcore2'] = None"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path / "lacking"), os.environ.get("PYTHONPATH")]))
    outcome = command("score", *arguments, PYTHONPATH=path)
    assert outcome.returncode == 1
    assert re.fullmatch(
        rf"error: .* needs {purpose}: pip install 'pscr-engine\[stores\]'", outcome.stderr.splitlines()[-1]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "s3://"], "--out s3://: names no bucket"),
        (["--out", "https://host/out"], "--out https://host/out: can't be on https://; use a path, s3://"),
        (["--bundle", "ftp://host/m"], "--bundle ftp://host/m: can't be on ftp://"),
        (["--shard", "4/4"], "--shard 4/4: shards are counted from 0, so 4 of them are 0/4 to 3/4"),
        (["--shard", "0/4", "--overwrite"], "--overwrite is for a whole run"),
        (["--shard", ""], "--shard : write it as i/n"),
        (["--allow-private-addresses"], "--allow-private-addresses is about web servers"),
    ],
)
def test_wrong_usage_is_one_line(command, tmp_path, model, arguments, message):
    outcome = command("score", "--manifest", "nothing.csv", *arguments)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {message}")
    assert outcome.stderr.count("\n") == 1
