"""`pscr-engine score` as a user runs it: real processes, real files, a tiny network."""

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine.bundle import Bundle

from ..helpers.images import encoded, pixels, write_troublesome
from ..helpers.runs import parts, rows, write_manifest
from ..helpers.tiny import expected_score, make_bundle

COLUMNS = ["row", "path", "score", "score_std", "status", "error", "width", "height", "stamp"]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    for index in range(40):
        (folder / f"{index:03d}.png").write_bytes(encoded(pixels(40 + index, 70, index)))
    return folder


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "model.pscr")


def test_one_row_per_manifest_row_with_the_networks_scores(cli, tmp_path, model, collection):
    names = [f"{index:03d}.png" for index in (3, 1, 3, 2)]  # duplicates count
    shutil.copytree(collection, tmp_path / "images")
    manifest = write_manifest(tmp_path / "images" / "m.csv", names, id=["a", "b", "c", "007"])
    outcome = cli("score", "--manifest", manifest)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("4 rows: 4 ok in ")
    assert outcome.stdout.endswith("scores: scores/part-*.parquet\n")
    table = rows(tmp_path / "scores")
    assert list(table[0]) == [COLUMNS[0], "id", *COLUMNS[1:]]
    assert [row["row"] for row in table] == [0, 1, 2, 3]
    assert [row["id"] for row in table] == ["a", "b", "c", "007"]
    for row, index in zip(table, (3, 1, 3, 2), strict=True):
        assert row["score"] == pytest.approx(expected_score(model, pixels(40 + index, 70, index)), abs=1e-5)
        assert (row["width"], row["height"]) == (70, 40 + index)
    run = json.loads((tmp_path / "scores" / "_run.json").read_text())
    assert run["identity"]["bundle"] == model.digest
    success = json.loads((tmp_path / "scores" / "_SUCCESS").read_text())
    assert success["status"] == {"ok": 4}
    assert success["stages"]["infer"]["items"] == 4


def test_troublesome_files_are_rows(cli, tmp_path, model):
    expected = write_troublesome(tmp_path / "files")
    manifest = write_manifest(tmp_path / "files" / "m.csv", expected)
    outcome = cli("score", "--manifest", manifest)
    assert outcome.returncode == 0, outcome.stderr
    table = rows(tmp_path / "scores")
    assert {row["path"]: row["status"] for row in table} == expected
    for row in table:
        assert (row["score"] is None) == (row["status"] != "ok") == (row["score_std"] is None)
        assert (row["error"] is None) == (row["status"] == "ok")
    strict = cli("score", "--manifest", manifest, "--small-images", "error", "--out", "strict")
    assert strict.returncode == 0
    assert {row["path"]: row["status"] for row in rows(tmp_path / "strict")} == {
        **expected,
        "one.png": "too_small",
    }


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "directory", "glob", "embedded"])
def test_every_kind_of_manifest_gives_the_same_scores(cli, tmp_path, model, collection, kind):
    names = sorted(file.name for file in collection.iterdir())
    manifest = tmp_path / f"m.{kind}"
    options = [] if kind in ("directory", "glob", "embedded") else ["--root", collection]
    if kind == "csv":
        write_manifest(manifest, names)
    elif kind == "parquet":
        pq.write_table(pa.table({"path": names}), manifest, row_group_size=7)
    elif kind == "jsonl":
        manifest.write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
    elif kind == "embedded":
        manifest = tmp_path / "m.parquet"
        images = [{"bytes": (collection / name).read_bytes(), "path": name} for name in names]
        pq.write_table(pa.table({"image": images}), manifest)
    else:
        manifest = collection if kind == "directory" else f"{collection}/*.png"
    outcome = cli("score", "--manifest", manifest, *options)
    assert outcome.returncode == 0, outcome.stderr
    assert [row["score"] for row in rows(tmp_path / "scores")] == pytest.approx(
        [expected_score(model, pixels(40 + index, 70, index)) for index in range(40)], abs=1e-5
    )


def test_scores_do_not_depend_on_batch_size_or_order(cli, tmp_path, model, collection):
    names = [f"{index:03d}.png" for index in range(40)]
    order = np.random.default_rng(0).permutation(40)
    straight = write_manifest(tmp_path / "straight.csv", names)
    shuffled = write_manifest(tmp_path / "shuffled.csv", [names[index] for index in order])
    scores = {}
    for name, manifest, batch in [
        ("1", straight, 1),
        ("7", straight, 7),
        ("32", straight, 32),
        ("s", shuffled, 7),
        ("again", straight, 7),
    ]:
        outcome = cli("score", "--manifest", manifest, "--root", collection, "--batch-size", batch, "--out", name)
        assert outcome.returncode == 0, outcome.stderr
        scores[name] = {row["path"]: row["score"] for row in rows(tmp_path / name)}
    assert scores["again"] == scores["7"]  # to the bit
    for name in ("1", "32", "s"):
        assert scores[name] == pytest.approx(scores["7"], abs=1e-5)


def test_a_killed_run_goes_on_where_it_was(cli, tmp_path, model, collection):
    names = [f"{index % 40:03d}.png" for index in range(1500)]
    manifest = write_manifest(tmp_path / "m.csv", names)
    command = ["score", "--manifest", manifest, "--root", collection, "--chunk-rows", 10]
    assert cli(*command, "--out", "whole").returncode == 0
    process = subprocess.Popen([sys.executable, "-m", "pscr_engine", *map(str, command)], cwd=tmp_path)
    while len(parts(tmp_path / "scores")) < 5:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = len(parts(tmp_path / "scores"))
    assert 5 <= done < 150
    assert not (tmp_path / "scores" / "_SUCCESS").exists()
    outcome = cli(*command)
    assert outcome.returncode == 0, outcome.stderr
    assert f"going on with scores: {done} chunks are done" in outcome.stderr
    assert rows(tmp_path / "scores") == rows(tmp_path / "whole")
    assert [part.read_bytes() for part in parts(tmp_path / "scores")] == [
        part.read_bytes() for part in parts(tmp_path / "whole")
    ]
    finished = cli(*command)
    assert finished.returncode == 0
    assert "complete already" in finished.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_says_how_to_go_on(tmp_path, model, collection, number):
    manifest = write_manifest(tmp_path / "m.csv", [f"{index % 40:03d}.png" for index in range(3000)])
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pscr_engine",
            "score",
            "--manifest",
            manifest,
            "--root",
            collection,
            "--chunk-rows",
            "10",
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(parts(tmp_path / "scores")) < 3:  # the first is counted by then, if not the last
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; give the same command again to go on" in stderr
    [record] = (tmp_path / "scores").glob("_process-*")
    [share] = json.loads(record.read_text())["processes"]
    assert 0 < share["images"] <= 10 * len(parts(tmp_path / "scores"))
    assert "Traceback" not in stderr
    assert [file.name for file in (tmp_path / "scores").glob(".*")] == [".lock"]


def test_another_run_on_the_same_folder_is_refused(cli, tmp_path, model, collection):
    assert cli("score", "--manifest", collection, "--out", "o").returncode == 0
    for change, what in [
        (["--features"], "features"),
        (["--chunk-rows", "7"], "chunk rows"),
        (["--manifest", f"{collection}/00*.png"], "manifest"),
    ]:
        outcome = cli("score", "--manifest", collection, "--out", "o", *change)
        assert outcome.returncode == 2
        assert f"another {what}" in outcome.stderr
    other = make_bundle(tmp_path / "other.pscr", exemplars=9)
    assert "another bundle" in cli("score", "--manifest", collection, "--out", "o", "--bundle", other.path).stderr
    outcome = cli("score", "--manifest", collection, "--out", "o", "--features", "--overwrite")
    assert outcome.returncode == 0, outcome.stderr
    assert len(rows(tmp_path / "o")[0]["features"]) == 8


def test_a_second_run_on_the_same_folder_is_refused_while_the_first_lives(cli, tmp_path, model, collection):
    manifest = write_manifest(tmp_path / "m.csv", [f"{index % 40:03d}.png" for index in range(1000)])
    command = ["score", "--manifest", manifest, "--root", collection, "--chunk-rows", "10"]
    first = subprocess.Popen(
        [sys.executable, "-m", "pscr_engine", *map(str, command)], cwd=tmp_path, stderr=subprocess.PIPE
    )
    while not parts(tmp_path / "scores"):
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # alive, and never done
    for options in ([], ["--overwrite"]):
        second = cli(*command, *options)
        assert second.returncode == 1  # no wrong usage: it may succeed later
        assert f"another run is writing there (process {first.pid} on " in second.stderr
    first.kill()
    first.communicate()
    third = cli(*command)
    assert third.returncode == 0, third.stderr
    assert len(rows(tmp_path / "scores")) == 1000


def test_failed_rows_are_retried_in_place(cli, tmp_path, model, collection):
    folder = tmp_path / "images"
    shutil.copytree(collection, folder)
    for name in ("003.png", "017.png", "018.png"):
        (folder / name).rename(folder / f"{name}.away")
    manifest = write_manifest(folder / "m.csv", [f"{index:03d}.png" for index in range(40)])
    command = ["score", "--manifest", manifest, "--chunk-rows", "10"]
    assert "37 ok, 3 missing" in cli(*command).stdout
    untouched = [parts(tmp_path / "scores")[index].stat().st_mtime_ns for index in (2, 3)]
    for name in ("003.png", "017.png"):
        (folder / f"{name}.away").rename(folder / name)
    outcome = cli(*command, "--retry-failed")
    assert "39 ok, 1 missing\nthis process: 3 images in " in outcome.stdout, outcome.stderr
    assert "2 processes are on record, with 43 images in " in outcome.stdout
    first, second = json.loads((tmp_path / "scores" / "_SUCCESS").read_text())["processes"]
    assert (first["images"], second["images"]) == (40, 3)
    assert first["host"] == second["host"] == platform.node()
    assert first["started"] < second["started"]
    assert min(first["seconds"], second["seconds"]) > 0
    assert json.loads((tmp_path / "scores" / "_SUCCESS").read_text())["scored_by_last_run"] == 3
    assert untouched == [parts(tmp_path / "scores")[index].stat().st_mtime_ns for index in (2, 3)]
    table = rows(tmp_path / "scores")
    assert [row["row"] for row in table] == list(range(40))
    assert table[17]["score"] == pytest.approx(expected_score(model, pixels(57, 70, 17)), abs=1e-5)


@pytest.mark.parametrize("lost", ["_SUCCESS", "part-000001.parquet", "part-000003.parquet"])
@pytest.mark.parametrize("options", [[], ["--retry-failed"]])
def test_a_run_that_lost_a_file_is_completed(cli, tmp_path, model, collection, lost, options):
    manifest = write_manifest(tmp_path / "m.csv", [f"{index:03d}.png" for index in range(35)] + ["gone.png"] * 3)
    command = ["score", "--manifest", manifest, "--root", collection, "--chunk-rows", "10"]
    assert cli(*command).returncode == 0
    before = rows(tmp_path / "scores")
    (tmp_path / "scores" / lost).unlink()
    outcome = cli(*command, *options)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("38 rows: 35 ok, 3 missing")
    assert rows(tmp_path / "scores") == before


def test_the_same_list_beside_other_images_is_another_run(cli, tmp_path, model, collection):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(encoded(pixels(40, 40, seed)))
    assert cli("score", "--manifest", "a").returncode == 0
    outcome = cli("score", "--manifest", "b")
    assert outcome.returncode == 2
    assert "another image folder" in outcome.stderr


def test_too_many_failures_exit_with_3_and_keep_the_rows(cli, tmp_path, model, collection):
    manifest = write_manifest(tmp_path / "m.csv", ["000.png", "gone.png", "001.png", "gone.png"])
    for rate, code in [("0.5", 0), ("0.49", 3)]:
        outcome = cli("score", "--manifest", manifest, "--root", collection, "--max-failure-rate", rate)
        assert outcome.returncode == code, outcome.stderr
    assert "2 of 4 images failed (50.0%), more than --max-failure-rate 0.49 allows" in outcome.stderr
    assert len(rows(tmp_path / "scores")) == 4


def test_nothing_scored_exits_with_3_and_an_example(cli, tmp_path, model):
    manifest = write_manifest(tmp_path / "m.csv", ["gone.png", "gone too.png"])
    outcome = cli("score", "--manifest", manifest)
    assert outcome.returncode == 3
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert "none of the 2 images could be scored; the first one, gone.png, is missing: no such file" in line
    again = cli("score", "--manifest", manifest)  # complete already, and still nothing
    assert again.returncode == 3
    assert cli("score", "--manifest", manifest, "--max-failure-rate", "1").returncode == 0
    http = write_manifest(tmp_path / "web.csv", ["http://host/a.png"])
    assert "only with allow_http" in cli("score", "--manifest", http, "--out", "web").stderr
    assert len(rows(tmp_path / "scores")) == 2


def test_an_empty_manifest_is_done_at_once(cli, tmp_path, model):
    outcome = cli("score", "--manifest", write_manifest(tmp_path / "m.csv", []))
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("0 rows: nothing to score")
    assert (tmp_path / "scores" / "_SUCCESS").exists()


def test_a_name_that_is_not_utf8(cli, tmp_path, model):
    folder = os.fsencode(tmp_path / "d")
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.png", "wb") as file:
        file.write(encoded(pixels(40, 40)))
    assert cli("score", "--manifest", tmp_path / "d").returncode == 0
    assert rows(tmp_path / "scores")[0]["status"] == "ok"


def test_a_full_disk_is_one_line_and_can_be_resumed(tmp_path, model, collection):
    """Limit the process's file size in place of a full disk: the write fails at the same point."""
    manifest = write_manifest(tmp_path / "m.csv", [f"{index % 40:03d}.png" for index in range(4000)])
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest, "--root", collection]
    command += ["--chunk-rows", "4000"]
    script = (
        "import resource, signal, sys, runpy\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n"
        "sys.argv = ['pscr-engine', *sys.argv[1:]]\n"
        "runpy.run_module('pscr_engine', run_name='__main__')\n"
    )
    # What measures coverage writes a file, too, and is not what is tested here.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    limited = subprocess.run(
        [sys.executable, "-c", script, *map(str, command[3:])],
        cwd=tmp_path,
        env=unmeasured,
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 1, limited.stderr
    assert "can't be written (File too large); mend that and give the same command again" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert sorted(os.listdir(tmp_path / "scores")) == [".lock", "_run.json"]
    assert subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True).returncode == 0
    assert len(rows(tmp_path / "scores")) == 4000


def test_the_bundle_on_disk_stays_as_it_was(cli, tmp_path, model, collection):
    cli("score", "--manifest", collection)
    assert Bundle.open(model.path).digest == model.digest


def begun(folder, command):
    """Start a command, and return its process once it has written five parts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pscr_engine", *map(str, command)], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    while len(parts(folder / "scores")) < 5:
        assert process.poll() is None
        time.sleep(0.005)
    return process


@pytest.mark.parametrize("vanishing", ["renamed", "replaced by an empty folder"])
def test_a_vanished_folder_is_one_line_and_can_be_resumed(cli, tmp_path, model, collection, vanishing):
    """Check that an unmounted disk does not make every image that is left a missing one."""
    images = tmp_path / "images"
    shutil.copytree(collection, images)
    manifest = write_manifest(tmp_path / "m.csv", [f"{index % 40:03d}.png" for index in range(4000)])
    command = ["score", "--manifest", manifest, "--root", images, "--chunk-rows", "10"]
    process = begun(tmp_path, command)
    images.rename(tmp_path / "away")
    if vanishing != "renamed":
        images.mkdir()
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith(f"error: {images}: the images' folder has gone")
    assert all(row["status"] == "ok" for row in rows(tmp_path / "scores"))
    if vanishing != "renamed":
        images.rmdir()
    (tmp_path / "away").rename(images)
    outcome = cli(*command)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("4000 rows: 4000 ok")


def test_a_read_only_folder_is_one_line():
    """Try it as another user, since root may write anywhere."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pscr_engine.errors import OutputError\n"
        "from pscr_engine.output.run_directory import RunDirectory\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: RunDirectory.open(Path(sys.argv[1]), {'identity': {}})\n"
        "except OutputError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        for place in (folder, f"{folder}/scores"):
            outcome = subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True)
            expected = f"{place}: can't write there (Permission denied); choose another out\n"
            assert outcome.stdout == expected, outcome.stderr


@pytest.mark.parametrize("kind", ["glob", "absolute paths"])
def test_a_vanished_folder_that_is_not_the_lists_own(cli, tmp_path, model, collection, kind):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(1500):
        os.link(collection / f"{index % 40:03d}.png", images / f"{index:04d}.png")
    manifest = f"{images}/*.png"
    if kind != "glob":
        manifest = str(write_manifest(tmp_path / "m.csv", sorted(map(str, images.iterdir()))))
    command = ["score", "--manifest", manifest, "--chunk-rows", "10"]
    process = begun(tmp_path, command)
    images.rename(tmp_path / "away")
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith(f"error: {images}: the images' folder has gone")
    assert all(row["status"] == "ok" for row in rows(tmp_path / "scores"))


def test_counts_of_a_list_with_blank_lines(cli, tmp_path, model, collection):
    (tmp_path / "m.csv").write_text("path\n" + "000.png\n\n\n" * 10)
    command = ["score", "--manifest", "m.csv", "--root", collection, "--log-format", "json"]
    for _ in range(2):  # the second finds it complete
        done = json.loads(cli(*command).stderr.splitlines()[-1])
        assert (done["event"], done["rows"], done["total"]) == ("done", 10, 10)
    wrong = cli(*command, "--batch-size", "x")
    assert wrong.returncode == 2
    assert json.loads(wrong.stderr)["event"] == "error"


def test_an_output_folder_whose_name_is_not_utf8(tmp_path, model, collection):
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", collection, "--out", b"o\xff"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / os.fsdecode(b"o\xff") / "part-000000.parquet").exists()


def replace_graph(bundle, data):
    """Put other bytes in place of a bundle's graph, with their digest."""
    (bundle / "scorer.fp32.onnx").write_bytes(data)
    info = json.loads((bundle / "bundle.json").read_text())
    info["files"]["scorer.fp32.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (bundle / "bundle.json").write_text(json.dumps(info))


def test_a_refused_start_leaves_no_folder(cli, tmp_path, model, collection):
    broken = make_bundle(tmp_path / "broken.pscr").path
    replace_graph(broken, b"no graph at all")
    manifest = write_manifest(tmp_path / "m.csv", ["000.png"])
    for options, said in [
        (["--backend", "tensorrt"], "runs on NVIDIA GPUs"),
        (["--devices", "cpu,cpu", "--backend", "tensorrt"], "runs on NVIDIA GPUs"),
        (["--devices", "cuda:0"], "there is no cuda:0 here"),
        (["--precision", "int8"], "int8"),
        (["--allow-private-addresses"], "give --allow-http, too"),
        (["--bundle", "none.pscr"], "none.pscr"),
        (["--bundle", str(broken)], "scorer.fp32.onnx"),
        (["--id-column", "nothing"], "nothing"),
        (["--shard", "3/3"], "shards are counted from 0"),
    ]:
        outcome = cli("score", "--manifest", manifest, "--root", collection, *options)
        assert outcome.returncode in (1, 2), (options, outcome.stderr)
        assert said in outcome.stderr, options
        assert "Traceback" not in outcome.stderr
        assert not (tmp_path / "scores").exists(), options


def test_a_refused_start_leaves_an_earlier_run_as_it_was(cli, tmp_path, model, collection):
    broken = make_bundle(tmp_path / "broken.pscr").path
    replace_graph(broken, b"no graph at all")
    manifest = write_manifest(tmp_path / "m.csv", ["000.png", "gone.png"])
    command = ["score", "--manifest", manifest, "--root", collection]
    assert cli(*command).returncode == 0
    before = {name: (tmp_path / "scores" / name).read_bytes() for name in os.listdir(tmp_path / "scores")}
    for options in (
        ["--backend", "tensorrt", "--overwrite"],
        ["--backend", "tensorrt", "--retry-failed"],
        ["--bundle", broken, "--overwrite"],
        ["--bundle", broken, "--overwrite", "--devices", "cpu,cpu"],
    ):
        outcome = cli(*command, *options)
        assert outcome.returncode in (1, 2), (options, outcome.stderr)
        after = {name: (tmp_path / "scores" / name).read_bytes() for name in before}
        assert {**after, ".lock": b""} == {**before, ".lock": b""}, options
    assert "complete already" in cli(*command).stderr


def test_a_run_that_never_began_makes_room(cli, tmp_path, model, collection):
    """Let workers fail that start after the folder is claimed: several, in processes of their own."""
    broken = make_bundle(tmp_path / "broken.pscr").path
    replace_graph(broken, b"no graph at all")
    manifest = write_manifest(tmp_path / "m.csv", ["000.png"])
    command = ["score", "--manifest", manifest, "--root", collection]
    assert cli(*command, "--bundle", broken, "--devices", "cpu,cpu").returncode == 1
    outcome = cli("score", "--manifest", collection)
    assert outcome.returncode == 0, outcome.stderr
    assert "holds a run that has not begun; this one takes its place" in outcome.stderr
    assert len(rows(tmp_path / "scores")) == 40
