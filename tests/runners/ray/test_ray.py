"""`pscr-engine score --runner ray` on a real cluster of several nodes on this machine: deaths, faults, late nodes."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pscr_engine.errors import BackendError, DeviceLostError
from pscr_engine.records import STAGES
from pscr_engine.runners.ledger import ChunkDone, Ledger
from pscr_engine.runners.progress import RunProgress
from pscr_engine.runners.ray.actor import Answer

from ...helpers.images import encoded, pixels
from ...helpers.tiny import expected_score, make_bundle

pytestmark = pytest.mark.slow

ROWS, CHUNK = 5000, 50
# What actors do follows a file, for Ray keeps processes ready that have started long before a test.
_AT_START = """
import pathlib, time
import pscr_engine.stages.infer as p
control = pathlib.Path({control!r})
def infer(*arguments, original=p.infer, **options):
    mode = control.read_text()
    if mode == "slow":
        time.sleep(0.02)
    if mode == "fault":
        raise ArithmeticError("injected")
    return original(*arguments, **options)
p.infer = infer
"""


class Place:
    """A folder with a bundle, a manifest and a local run's output, and a cluster that scores slowly if told to."""

    def __init__(self, folder, cluster):
        self.folder, self.cluster = folder, cluster
        self.control = folder / "control"
        self.node: Any = None

    def start(self, out, *options, rows="m.csv"):
        command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", rows, "--out", out]
        return subprocess.Popen(
            [*command, "--chunk-rows", str(CHUNK), *options],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_on_ray(self, out, *options):
        return self.start(
            out, "--runner", "ray", "--ray-address", self.cluster.address, "--cpus-per-worker", "1", *options
        )

    def wait_for_parts(self, process, out, count):
        deadline = time.monotonic() + 60
        while len(list((self.folder / out).glob("part-*"))) < count:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def assert_same_bytes(self, out):
        parts = sorted((self.folder / "whole").glob("part-*.parquet"))
        assert len(parts) == ROWS // CHUNK
        assert sorted(part.name for part in (self.folder / out).glob("part-*")) == [part.name for part in parts]
        for part in parts:
            assert (self.folder / out / part.name).read_bytes() == part.read_bytes()
        return json.loads((self.folder / out / "_SUCCESS").read_text())

    @contextmanager
    def mode(self, text):
        self.control.write_text(text)
        yield
        self.control.write_text("")

    def actors(self, node):
        """Process ids of the scoring actors on a node."""
        raylet = node.all_processes["raylet"][0].process.pid
        found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(raylet)], capture_output=True, text=True)
        return [int(line.split()[0]) for line in found.stdout.splitlines() if "ray::ScoringActor" in line]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    folder = tmp_path_factory.mktemp("ray")
    make_bundle(folder / "model.pscr")
    for index in range(40):
        (folder / f"{index:03d}.png").write_bytes(encoded(pixels(40 + index, 70, index)))
    (folder / "m.csv").write_text("path\n" + "\n".join(f"{row % 41:03d}.png" for row in range(ROWS)) + "\n")
    (folder / "control").write_text("")
    (folder / "start").mkdir()
    (folder / "start" / "sitecustomize.py").write_text(_AT_START.format(control=str(folder / "control")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "start"), *filter(None, sys.path)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            there = Place(folder, cluster)
            process = there.start("whole")
            assert process.wait() == 0
            process.communicate()
            there.node = add_node(cluster, 2)
            yield there
        finally:
            cluster.shutdown()


def add_node(cluster, cpus):
    return cluster.add_node(num_cpus=cpus, object_store_memory=80 * 2**20)


@contextmanager
def another_node(place):
    """Add a node of one core, beside the one of two and the head, which has none."""
    node = add_node(place.cluster, 1)
    yield node
    if node in place.cluster.worker_nodes:
        place.cluster.remove_node(node)


def wait_until(condition, process=None):
    deadline = time.monotonic() + 30
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore:lance is not fork-safe:UserWarning")  # Ray loads it where it is installed
def test_an_actor_and_a_node_die_and_another_node_joins(place):
    with another_node(place) as node, place.mode("slow"):
        process = place.start_on_ray("killed")
        place.wait_for_parts(process, "killed", 8)
        victim, *_ = place.actors(place.node)
        os.kill(victim, signal.SIGKILL)
        place.wait_for_parts(process, "killed", 20)
        wait_until(lambda: place.actors(node), process)
        place.cluster.remove_node(node, allow_graceful=False)
        place.wait_for_parts(process, "killed", 28)
        with another_node(place) as late:
            wait_until(lambda: place.actors(late), process)
            place.control.write_text("")
            stdout, stderr = process.communicate(timeout=270)
    assert process.returncode == 0, stderr
    assert [line.split(" in ")[0] for line in stdout.splitlines()] == [
        f"{ROWS} rows: {ROWS - ROWS // 41} ok, {ROWS // 41} missing",
        "scores: killed/part-*.parquet",
    ]
    assert "has died: its chunks are given out again" in stderr
    assert "is gone with its node: its chunks are given out again" in stderr
    success = place.assert_same_bytes("killed")
    assert success["rows"] == ROWS
    assert success["status"] == {"ok": ROWS - ROWS // 41, "missing": ROWS // 41}


@pytest.mark.parametrize(
    ("first", "number", "code"),
    [("ray", signal.SIGTERM, 130), ("ray", signal.SIGKILL, -signal.SIGKILL), ("local", signal.SIGINT, 130)],
)
def test_either_runner_goes_on_with_what_the_other_began(place, first, number, code):
    out = f"resumed-{first}-{number}"
    begin, end = (place.start_on_ray, place.start) if first == "ray" else (place.start, place.start_on_ray)
    with place.mode("slow"):
        process = begin(out)
        place.wait_for_parts(process, out, 5)
        assert len(place.actors(place.node)) == (2 if first == "ray" else 0)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=90)
        wait_until(lambda: not place.actors(place.node))
    assert process.returncode == code, stderr
    assert not (place.folder / out / "_SUCCESS").exists()
    process = end(out)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert "going on with" in stderr
    success = place.assert_same_bytes(out)
    assert 0 < success["scored_by_last_run"] < ROWS


def test_a_fault_in_an_actor_ends_the_run_with_its_traceback(place):
    with place.mode("fault"):
        process = place.start_on_ray("fault")
        _, stderr = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "ArithmeticError: injected" in stderr
    assert "in infer" in stderr  # where it was raised


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "error: --workers is for a Ray cluster: add --runner ray"),
        (["--ray-address", "local"], "error: --ray-address is for a Ray cluster: add --runner ray"),
        (["--runner", "ray", "--shard", "0/2"], "error: --shard is for runs without a coordinator"),
        (["--runner", "ray", "--devices", "cuda:0"], "error: --devices cuda:0: Ray gives each worker its GPU"),
        (["--runner", "ray", "--gpus-per-worker", "2"], "error: --gpus-per-worker 2: a worker has one GPU, or none"),
        (["--runner", "ray", "--ray-address", "127.0.0.1:1"], "error: --ray-address 127.0.0.1:1: can't use that"),
    ],
)
def test_wrong_options_are_one_line(place, options, message):
    process = place.start("never", *options)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 2
    assert stderr.startswith(message)
    assert len(stderr.splitlines()) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")  # of its own settings, which it reads itself
def test_score_batch_in_ray_data(place):
    ray = pytest.importorskip("ray")
    from pscr_engine.bundle import Bundle
    from pscr_engine.runners.ray.runner import ScoreBatch

    bundle = Bundle.open(place.folder / "model.pscr")
    paths = [str(place.folder / f"{index:03d}.png") for index in range(12)] + [str(place.folder / "none.png")]
    ray.init(address=place.cluster.address, log_to_driver=False)
    try:
        images = ray.data.from_items([{"path": path, "row": row} for row, path in enumerate(paths)])
        model = str(place.folder / "model.pscr")
        scored = images.map_batches(ScoreBatch, fn_constructor_args=(model,), batch_size=5, concurrency=1, num_cpus=1)
        rows = sorted(scored.take_all(), key=lambda row: row["row"])
    finally:
        ray.shutdown()
    assert [row["path"] for row in rows] == paths
    assert [row["status"] for row in rows] == ["ok"] * 12 + ["missing"]
    assert np.isnan(rows[-1]["score"])
    for index, row in enumerate(rows[:-1]):
        assert row["score"] == pytest.approx(expected_score(bundle, pixels(40 + index, 70, index)), abs=1e-4)


class ScriptedFleet:
    """Workers that say what they are told to: per worker, answers to `open` and then to each `score`."""

    needs = "nothing"

    def __init__(self, ray, *workers):
        self.ray, self.coming, self.count = ray, list(workers), len(workers)

    def wanted(self):
        return self.count

    def start(self):
        return ScriptedWorker(
            self.ray, *(self.coming.pop(0) if self.coming else (Answer(error=BackendError("none left")),))
        )


class ScriptedWorker:
    def __init__(self, ray, opened, *losses):
        self.ray, self.opened, self.losses, self.numbers = ray, opened, list(losses), itertools.count(1)

    def said(self, answer):
        stages = dict.fromkeys(STAGES, (0, 0.0))
        return self.ray.put(replace(answer, number=next(self.numbers), stages=stages))

    def open(self):
        return self.said(self.opened)

    def progress(self):
        return self.said(Answer())

    def score(self, chunk):
        if self.losses:
            return self.said(self.losses.pop(0))
        return self.said(Answer(done=ChunkDone(chunk.index, len(chunk.rows), Counter(ok=len(chunk.rows)))))

    def kill(self):
        pass

    def node_is_gone(self, node_id, error):
        return False


def good(node, gpus=""):
    return Answer(node=node, node_id=node, gpus=gpus)


def bad(text):
    return Answer(error=BackendError(text), node="bad")


def scored_rows(place, *workers):
    import ray

    from pscr_engine.runners.ray.pool import RayPool

    ray.init(address=place.cluster.address, log_to_driver=False)
    try:
        ledger = Ledger(10, end=500)
        progression = RunProgress(500, 0, lambda snapshot: None)
        RayPool(ScriptedFleet(ray, *workers), ledger, progression).run()
        return progression.snapshot().status["ok"]
    finally:
        ray.shutdown()


def test_a_node_where_nothing_starts_is_left_out(place, caplog):
    assert scored_rows(place, (bad("no card"),), (good("a"),), (bad("no mount"),)) == 500
    assert "worker 0 can't start on bad, and the run goes on without it: no card" in caplog.text


def test_if_no_worker_can_start_the_run_ends_with_the_reason(place):
    with pytest.raises(BackendError, match="no card"):
        scored_rows(place, (bad("no card"),), (bad("no card"),), (bad("no card"),))


def test_a_card_that_drops_out_again_and_again_is_not_blamed_on_an_image(place, caplog):
    lost = Answer(error=DeviceLostError("it is gone"))
    cards = [(good("a", "3"), lost), (good("a", "4"),), (good("a", "3"), lost), (bad("no such card"),)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedFleet, "wanted", lambda fleet: 2)
        assert scored_rows(place, *cards) == 500
    assert "(GPU 3 of a): it is gone" in caplog.text
