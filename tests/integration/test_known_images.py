"""`score --known`: real runs that take over what an earlier one has scored."""

import io
import json
import os
import shutil
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..helpers.images import encoded, pixels
from ..helpers.runs import parts, rows, write_manifest
from ..helpers.tiny import make_bundle

RESULT = ["score", "score_std", "status", "error", "width", "height", "features"]
OLD = 30


def save(path, index):
    path.write_bytes(encoded(pixels(40 + index % 7, 50, index)))
    settle(path)


def settle(path, seconds=3600):
    """Let a file be an hour old: one that has just been written is not known by its time."""
    now = time.time() - seconds
    os.utime(path, (now, now))


def results(table):
    """Return path → what is taken over."""
    return {row["path"]: {name: row[name] for name in RESULT if name in row} for row in table}


def success(out):
    return json.loads((out / "_SUCCESS").read_text())


def names(*indices):
    return [f"{index:03d}.png" for index in indices]


@pytest.fixture
def place(tmp_path):
    """Make a folder with a bundle, 40 images, and lists of 30 and of all of them."""
    make_bundle(tmp_path / "model.pscr")
    images = tmp_path / "images"
    images.mkdir()
    for index in range(40):
        save(images / f"{index:03d}.png", index)
    write_manifest(images / "old.csv", names(*range(OLD)))
    write_manifest(images / "new.csv", names(*range(39, -1, -1)))
    return tmp_path


def score(cli, list_, out, *options, rc=0):
    outcome = cli("score", "--manifest", f"images/{list_}", "--out", out, "--chunk-rows", 8, *options)
    assert outcome.returncode == rc, outcome.stderr
    assert "Traceback" not in outcome.stderr
    return outcome


def refused(cli, list_, *options, known="old"):
    outcome = score(cli, list_, "refused", "--known", known, *options, rc=2)
    line = outcome.stderr.strip().splitlines()[-1]
    assert line.startswith("error: --known")
    return line


def test_only_what_is_new_is_scored(cli, place):
    score(cli, "old.csv", "old", "--features")
    outcome = score(cli, "new.csv", "new", "--features", "--known", "old")
    assert "40 rows: 40 ok" in outcome.stdout
    assert "taken over from earlier runs: 30 rows" in outcome.stdout
    score(cli, "new.csv", "all", "--features")
    new, old, whole = (rows(place / name) for name in ("new", "old", "all"))
    assert [row["row"] for row in new] == list(range(40))
    assert [row["path"] for row in new] == names(*range(39, -1, -1))
    assert {path: results(new)[path] for path in results(old)} == results(old)  # to the bit
    for path, result in results(whole).items():
        assert results(new)[path]["score"] == pytest.approx(result["score"], abs=1e-5)
    assert {row["path"] for row in new if row["taken_from"] is None} == set(names(*range(OLD, 40)))
    assert {row["taken_from"] for row in new} == {None, "old"}
    assert {row["path"]: row["stamp"] for row in new} == {row["path"]: row["stamp"] for row in whole}
    assert success(place / "new")["taken_over"] == {"rows": 30, "known_by": "path", "from": {"old": 30}}
    assert success(place / "new")["stages"]["fetch"]["items"] == 10
    again = score(cli, "new.csv", "new", "--features", "--known", "old")
    assert "complete already" in again.stderr
    assert "taken over from earlier runs: 30 rows" in again.stdout
    # What was taken over is known by the next run, too; the first run that is named counts.
    score(cli, "new.csv", "third", "--features", "--known", "new", "--known", "old")
    assert success(place / "third")["taken_over"] == {
        "rows": 40,
        "known_by": "path",
        "from": {"new": 40, "old": 0},
    }
    assert results(rows(place / "third")) == results(new)
    for command in (["report", "third"], ["select", "third", "--top", "10%"]):
        assert cli(*command).returncode == 0


def test_a_changed_image_is_scored(cli, place):
    score(cli, "old.csv", "old")
    same_size = place / "images" / "003.png"
    data = bytearray(same_size.read_bytes())
    save(place / "images" / "004.png", 104)  # other bytes
    settle(place / "images" / "004.png", 60)
    settle(same_size, 60)  # only its time: it may have changed
    same_size.write_bytes(bytes(data))
    (place / "images" / "005.png").unlink()
    score(cli, "new.csv", "new", "--known", "old")
    table = {row["path"]: row for row in rows(place / "new")}
    fresh = {path for path, row in table.items() if row["taken_from"] is None}
    assert fresh == set(names(3, 4, 5, *range(OLD, 40)))
    assert table["005.png"]["status"] == "missing"
    assert table["004.png"]["score"] != results(rows(place / "old"))["004.png"]["score"]


def test_the_same_names_beside_other_images_are_others(cli, place):
    score(cli, "old.csv", "old")
    shutil.copytree(place / "images", place / "copy")
    outcome = cli("score", "--manifest", "copy/old.csv", "--out", "new", "--known", "old")
    assert outcome.returncode == 0, outcome.stderr
    assert success(place / "new")["taken_over"]["rows"] == 0


def test_an_image_that_was_just_written_is_not_known_by_its_time(cli, place):
    image = place / "images" / "007.png"
    os.utime(image, (time.time() + 3600,) * 2)
    score(cli, "old.csv", "old")
    score(cli, "old.csv", "new", "--known", "old")
    assert success(place / "new")["taken_over"]["rows"] == OLD - 1
    assert [row["path"] for row in rows(place / "new") if row["taken_from"] is None] == ["007.png"]


def test_runs_whose_results_would_differ_are_refused(cli, place):
    score(cli, "old.csv", "old")
    assert "another features (False, now True)" in refused(cli, "new.csv", "--features")
    assert "another max pixels" in refused(cli, "new.csv", "--max-pixels", 10**6)
    assert "another small images" in refused(cli, "new.csv", "--small-images", "error")
    make_bundle(place / "other.pscr", exemplars=6)
    assert "another bundle" in refused(cli, "new.csv", "--bundle", "other.pscr")
    run = json.loads((place / "old" / "_run.json").read_text())
    run["identity"]["precision"] = "fp16"
    shutil.copytree(place / "old", place / "fp16")
    (place / "fp16" / "_run.json").write_text(json.dumps(run))
    assert "another precision (fp16, now fp32)" in refused(cli, "new.csv", known="fp16")
    (place / "old" / "_SUCCESS").unlink()
    outcome = score(cli, "new.csv", "refused", "--known", "old", rc=2)
    assert "that run is not complete" in outcome.stderr
    assert not (place / "refused").exists()


def test_what_makes_no_sense_is_refused(cli, place):
    score(cli, "old.csv", "old")
    line = score(cli, "old.csv", "old", "--known", place / "old", rc=2).stderr.strip()
    assert line == f"error: --known {place}/old: is --out itself; choose another --out for the new run"
    for options, what in ((["--known-failed"], "--known-failed"), (["--known-by", "id"], "--known-by")):
        line = score(cli, "old.csv", "new", *options, rc=2).stderr.strip()
        assert line == f"error: {what} is about earlier runs: name one with --known"
    assert "no such folder" in score(cli, "old.csv", "new", "--known", "nowhere", rc=2).stderr
    assert "holds no digests of its images" in refused(cli, "new.csv", "--known-by", "content")
    assert "the list has no identifiers" in refused(cli, "new.csv", "--known-by", "id")
    write_manifest(place / "images" / "ids.csv", names(1), id=["a"])
    assert "holds no identifiers" in refused(cli, "ids.csv", "--known-by", "id")


def test_another_known_run_makes_another_run(cli, place):
    score(cli, "old.csv", "old")
    score(cli, "old.csv", "older")
    score(cli, "new.csv", "new", "--known", "old")
    for options in ([], ["--known", "older"], ["--known", "old", "--known-failed"]):
        outcome = score(cli, "new.csv", "new", *options, rc=2)
        assert "holds a run with another known" in outcome.stderr
    score(cli, "old.csv", "old", "--overwrite")
    assert "holds a run with another known" in score(cli, "new.csv", "new", "--known", "old", rc=2).stderr


def test_a_run_of_an_earlier_version_has_no_stamps(cli, place):
    score(cli, "old.csv", "old")
    for part in parts(place / "old"):
        pq.write_table(pq.read_table(part).drop_columns(["stamp"]), part)
    run = json.loads((place / "old" / "_run.json").read_text())
    del run["stamps"]
    (place / "old" / "_run.json").write_text(json.dumps(run))
    line = refused(cli, "new.csv")
    assert "holds no stamps of its images' files" in line
    assert line.endswith("use --known-by id or --known-by content")
    (place / "images" / "003.png").rename(place / "images" / "away")
    for number in (0, 1):  # such a run can still be gone on with, and its failures retried
        (place / "old" / f"part-{number:06d}.parquet").unlink()
    score(cli, "old.csv", "old")
    (place / "images" / "away").rename(place / "images" / "003.png")
    score(cli, "old.csv", "old", "--retry-failed")
    assert len(rows(place / "old")) == OLD
    assert "stamp" not in rows(place / "old")[0]


def test_known_by_identifiers(cli, place):
    folder = place / "images"
    write_manifest(folder / "old.csv", names(0, 1, 2, 3, 4, 5), id=["a", "b", "c", "d", "d", ""])
    score(cli, "old.csv", "old")
    for index in range(6):
        (folder / f"{index:03d}.png").unlink()
    write_manifest(folder / "new.csv", [*names(9, 1, 2, 9, 9), ""], id=["b", "a", "new", "d", "c", "b"])
    outcome = score(cli, "new.csv", "new", "--known", "old", "--known-by", "id")
    assert "taken over from earlier runs: 3 rows" in outcome.stdout
    old, new = ({row["row"]: row for row in rows(place / name)} for name in ("old", "new"))
    assert [new[row]["taken_from"] for row in range(6)] == ["old", "old", None, None, "old", None]
    for ours, theirs in ((0, 1), (1, 0), (4, 2)):
        assert {name: new[ours][name] for name in (*RESULT[:-1], "stamp")} == {
            name: old[theirs][name] for name in (*RESULT[:-1], "stamp")
        }
    assert new[2]["status"] == new[5]["status"] == "missing"
    assert new[3]["score"] is not None  # "d" is there twice: which one is meant is not known
    pq.write_table(pa.table({"path": names(9), "id": [1]}), folder / "n.parquet")
    assert "its identifiers are string, those of the list int64" in refused(cli, "n.parquet", "--known-by", "id")


def test_known_by_content(cli, place):
    folder = place / "images"
    score(cli, "old.csv", "old", "--known-by", "content")
    assert all(len(row["sha256"]) == 32 for row in rows(place / "old"))
    assert "holds a run with another known by (content, now unset)" in score(cli, "old.csv", "old", rc=2).stderr
    other = place / "elsewhere"
    other.mkdir()
    for index in range(OLD):
        shutil.copy(folder / f"{index:03d}.png", other / f"x{index:03d}.png")
    save(other / "x004.png", 104)
    save(other / "x099.png", 99)
    outcome = cli("score", other, "--out", "new", "--known", "old", "--known-by", "content")
    assert outcome.returncode == 0, outcome.stderr
    table = {row["path"].rpartition("/")[2][1:]: row for row in rows(place / "new")}
    assert {name for name, row in table.items() if row["taken_from"] is None} == {"004.png", "099.png"}
    old = results(rows(place / "old"))
    for name, row in table.items():
        if row["taken_from"]:
            assert {each: row[each] for each in RESULT[:-1]} == old[name]
    assert len({row["sha256"] for row in table.values()}) == OLD + 1
    assert success(place / "new")["stages"]["infer"]["items"] == 2
    images = [{"bytes": (folder / name).read_bytes(), "path": name} for name in names(1, 2, 35)]
    pq.write_table(pa.table({"image": images}), place / "images" / "embedded.parquet")
    score(cli, "embedded.parquet", "embedded", "--known", "old", "--known-by", "content")
    assert [row["taken_from"] for row in rows(place / "embedded")] == ["old", "old", None]
    assert "holds no stamps" in refused(cli, "embedded.parquet", known="embedded")


def test_failed_rows_are_scored_again_unless_they_are_asked_for(cli, place):
    folder = place / "images"
    for index, data in ((1, b"no image"), (2, b"")):
        (folder / f"{index:03d}.png").write_bytes(data)
        settle(folder / f"{index:03d}.png")
    (folder / "003.png").unlink()
    score(cli, "old.csv", "old")
    assert success(place / "old")["status"] == {"ok": 27, "missing": 1, "undecodable": 2}
    score(cli, "new.csv", "new", "--known", "old")
    assert success(place / "new")["taken_over"]["rows"] == 27
    score(cli, "new.csv", "failed", "--known", "old", "--known-failed")
    assert success(place / "failed")["taken_over"]["rows"] == 29  # nothing tells that a missing one is still missing
    assert results(rows(place / "failed")) == results(rows(place / "new"))
    score(cli, "new.csv", "failed", "--known", "old", "--known-failed", "--retry-failed")
    assert success(place / "failed")["taken_over"]["rows"] == 27
    assert results(rows(place / "failed")) == results(rows(place / "new"))


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_killed_and_resumed(cli, place, devices):
    write_manifest(place / "images" / "long.csv", names(*[row % 40 for row in range(1200)]))
    score(cli, "old.csv", "old")
    command = ["score", "--manifest", "images/long.csv", "--chunk-rows", "8", "--known", "old"]
    command += ["--devices", devices]
    assert cli(*command, "--out", "whole").returncode == 0
    process = subprocess.Popen([sys.executable, "-m", "pscr_engine", *command], cwd=place)
    while len(parts(place / "scores")) < 5:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert len(parts(place / "scores")) < 150
    outcome = cli(*command)
    assert outcome.returncode == 0, outcome.stderr
    assert rows(place / "scores") == rows(place / "whole")
    assert success(place / "scores")["taken_over"] == success(place / "whole")["taken_over"]
    assert success(place / "scores")["taken_over"]["rows"] == 900


def test_two_shards(cli, place):
    score(cli, "old.csv", "old")
    score(cli, "new.csv", "whole", "--known", "old")
    for shard in ("0/2", "1/2"):
        score(cli, "new.csv", "new", "--known", "old", "--shard", shard)
    assert rows(place / "new") == rows(place / "whole")
    assert success(place / "new")["taken_over"]["rows"] == OLD


def test_on_ray(cli, place):
    pytest.importorskip("ray")
    score(cli, "old.csv", "old")
    score(cli, "new.csv", "whole", "--known", "old")
    ray = ["--runner", "ray", "--ray-address", "local", "--workers", "1", "--cpus-per-worker", "1"]
    score(cli, "new.csv", "new", "--known", "old", *ray)
    assert results(rows(place / "new")) == results(rows(place / "whole"))
    assert success(place / "new")["taken_over"]["rows"] == OLD


def test_on_a_store(command, bucket, proxy, tmp_path):
    make_bundle(tmp_path / "model.pscr")
    for index in range(20):
        bucket.put(f"images/{index:03d}.png", encoded(pixels(40, 50, index)))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": names(*range(15))}), buffer)
    bucket.put("images/old.parquet", buffer.getvalue())
    base = ["score", "--chunk-rows", 8]
    outcome = command(*base, "--manifest", f"{bucket.uri}/images/old.parquet", "--out", f"{bucket.uri}/old")
    assert outcome.returncode == 0, outcome.stderr
    bucket.put("images/003.png", encoded(pixels(40, 50, 103)))
    fetched = []

    def rule(method, path):
        if method == "GET" and path.endswith(".png"):
            fetched.append(path[-7:])

    proxy.rule = rule
    arguments = [*base, "--manifest", f"{bucket.uri}/images/*.png", "--known", f"{bucket.uri}/old"]
    outcome = command(*arguments, "--out", "new", url=proxy.url)
    assert outcome.returncode == 0, outcome.stderr
    assert sorted(fetched) == names(3, *range(15, 20))
    table = rows(tmp_path / "new")
    assert {row["path"][-7:] for row in table if row["taken_from"] is None} == set(fetched)
    assert success(tmp_path / "new")["taken_over"]["from"] == {f"{bucket.uri}/old": 14}
