"""`pscr-engine score` with several worker processes: deaths, faults, signals."""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from ..helpers.images import encoded, pixels
from ..helpers.object_store import free_port
from ..helpers.runs import rows
from ..helpers.tiny import make_bundle

ROWS = 2000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder with a bundle, a manifest of 2,000 rows (some of which fail) and an uninterrupted run's output."""
    folder = tmp_path_factory.mktemp("workers")
    make_bundle(folder / "model.pscr")
    for index in range(40):
        (folder / f"{index:03d}.png").write_bytes(encoded(pixels(40 + index, 70, index)))
    (folder / "037.png").write_bytes(b"broken")
    names = [f"{row % 41:03d}.png" for row in range(ROWS)]  # 040.png is missing
    (folder / "m.csv").write_text("path\n" + "\n".join(names) + "\n")
    outcome = subprocess.run([*COMMAND, "--out", "whole"], cwd=folder, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return folder


COMMAND = [sys.executable, "-m", "pscr_engine", "score", "--manifest", "m.csv", "--chunk-rows", "20"]


def start(place, out, *options, **environment):
    return subprocess.Popen(
        [*COMMAND, "--out", out, *options],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def workers_of(process):
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "worker_process" in line]


def workers_ready(port):
    """Return the number of workers that a run's metrics call ready; 0 while nothing answers yet."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            found = re.search(r'^pscr_engine_workers\{device="cpu"\} (\d+)', answer.read().decode(), re.MULTILINE)
    except URLError:
        return 0
    return int(found[1]) if found else 0


def fault(folder, code):
    """Write code that runs at the start of every process of the command, and return the environment for it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def test_workers_write_the_same_bytes_as_one_process(place):
    process = start(place, "two", "--devices", "cpu,cpu")
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert stdout.startswith(f"{ROWS} rows: ")
    for part in (place / "whole").glob("part-*.parquet"):
        assert (place / "two" / part.name).read_bytes() == part.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "times"), [("cpu", 25), ("cpu,cpu", 12)])
def test_killed_at_random_moments_and_resumed(place, devices, times):
    """Kill the command so many times by SIGKILL; a run that gets done is checked, and another begun."""
    expected, dice = rows(place / "whole"), random.Random(4)
    kills, finished, out = 0, 0, place / f"killed-{devices}"
    while kills < times:
        process = start(place, out, "--devices", devices)
        try:
            process.communicate(timeout=dice.uniform(0.2, 2.2))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0
        assert rows(out) == expected
        finished += 1
        for file in out.iterdir():
            file.unlink()
    process = start(place, out, "--devices", devices)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert rows(out) == expected


@pytest.mark.slow
def test_workers_killed_at_random_moments(place):
    """Kill 25 worker processes by SIGKILL: others take over, and nothing is lost or there twice."""
    expected, dice = rows(place / "whole"), random.Random(5)
    kills, out = 0, place / "bereft"
    while kills < 25:
        process = start(place, out, "--devices", "cpu,cpu")
        while process.poll() is None:
            time.sleep(dice.uniform(0.05, 0.8))
            victims = workers_of(process)
            if victims and process.poll() is None:
                os.kill(dice.choice(victims), signal.SIGKILL)
                kills += 1
        _, stderr = process.communicate()
        if process.returncode == 0:
            assert rows(out) == expected
            for file in out.iterdir():
                file.unlink()
        else:  # two deaths on one chunk, or three while starting, end a run in one line; the next goes on
            assert process.returncode == 1
            assert "Traceback" not in stderr
    process = start(place, out, "--devices", "cpu,cpu")
    process.communicate(timeout=180)
    assert rows(out) == expected


def test_a_killed_worker_is_replaced(place):
    slow = fault(
        place / "slow",
        "import pscr_engine.stages.infer as p, time\n"
        "def infer(*arguments, original=p.infer, **options):\n"
        "    time.sleep(0.002)\n"
        "    original(*arguments, **options)\n"
        "p.infer = infer\n",
    )
    process = start(place, "replaced", "--devices", "cpu,cpu", **slow)
    while len(list((place / "replaced").glob("part-*"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    assert "(cpu) has died (signal SIGKILL): its chunks are given out again" in stderr
    assert rows(place / "replaced") == rows(place / "whole")


def test_an_image_that_kills_every_worker_ends_the_run_with_its_rows(place):
    """Kill each process that decodes one image: its rows are named, and the run can be resumed."""
    deadly = fault(
        place / "deadly",
        "import os, pscr_engine.stages.on_host as p\n"
        "def decode(query, options, original=p.decode):\n"
        "    os.abort() if query.row == 777 else original(query, options)\n"
        "p.decode = decode\n",
    )
    begun = time.monotonic()
    process = start(place, "deadly-out", "--devices", "cpu,cpu", **deadly)
    _, stderr = process.communicate(timeout=180)
    assert time.monotonic() - begun < 30
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("error: rows 760 to 779 (chunk 38) have killed a worker 2 times")
    assert "Traceback" not in stderr
    process = start(place, "deadly-out", "--devices", "cpu,cpu")
    process.communicate(timeout=180)
    assert rows(place / "deadly-out") == rows(place / "whole")


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
@pytest.mark.parametrize("stage", ["source", "fetch", "decode", "sample", "infer", "sink"])
def test_a_fault_in_any_stage_ends_the_run_with_its_traceback(place, tmp_path, stage, devices):
    target = {
        "source": "pscr_engine.manifests.queries.QueryMaker.make",
        "fetch": "pscr_engine.stages.fetch.read_file",
        "decode": "pscr_engine.stages.on_host.decode",
        "sample": "pscr_engine.stages.sample.Sampler.sample",
        "infer": "pscr_engine.stages.infer.infer",
        "sink": "pscr_engine.runners.worker.to_table",
    }[stage]
    injected = fault(
        tmp_path / "fault",
        "import importlib, itertools, unittest.mock, pkgutil\n"
        f"target = {target!r}\n"
        "owner, name = target.rsplit('.', 1)\n"
        "owner = pkgutil.resolve_name(owner)\n"
        "original, calls = getattr(owner, name), itertools.count()\n"
        "def fault(*arguments, **options):\n"
        "    if next(calls) == 30: raise ArithmeticError('injected')\n"
        "    return original(*arguments, **options)\n"
        "setattr(owner, name, fault)\n",
    )
    begun = time.monotonic()
    process = start(place, tmp_path / "out", "--devices", devices, **injected)
    _, stderr = process.communicate(timeout=180)
    assert time.monotonic() - begun < 10
    assert process.returncode == 1
    assert "Traceback" in stderr
    assert "in fault" in stderr  # where it was raised
    assert "ArithmeticError: injected" in stderr
    process = start(place, tmp_path / "out", "--devices", devices)
    process.communicate(timeout=180)
    assert rows(tmp_path / "out") == rows(place / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_stops_the_workers_too(place, tmp_path, number):
    process = start(place, tmp_path / "out", "--devices", "cpu,cpu")
    while not list((tmp_path / "out").glob("part-*")):
        assert process.poll() is None
        time.sleep(0.005)
    workers = workers_of(process)
    assert len(workers) == 2
    begun = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130
    assert stderr.endswith("interrupted; give the same command again to go on\n")
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    assert [file.name for file in (tmp_path / "out").glob(".*")] == [".lock"]


def test_workers_of_a_killed_run_are_gone_at_once(place, tmp_path):
    process = start(place, tmp_path / "out", "--devices", "cpu,cpu")
    while not (workers := workers_of(process)):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 2
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_cannot_start_is_one_line(place, tmp_path):
    broken = fault(tmp_path / "broken", "import os, sys\nif 'worker_process' in ' '.join(sys.orig_argv): os._exit(7)\n")
    process = start(place, tmp_path / "out", "--devices", "cpu,cpu", **broken)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 1
    assert stderr.splitlines()[-1] == "error: the worker for cpu died 3 times while starting (exit code 7)"
    assert "Traceback" not in stderr


@pytest.mark.parametrize("change", ["bundle", "no bundle", "manifest"])
def test_a_worker_that_starts_late_does_not_work_with_something_else(place, tmp_path, change):
    """Replace the bundle or the manifest during a run, or remove it: a new worker says so, and scores nothing."""
    shutil.copytree(place / "model.pscr", tmp_path / "model.pscr")
    names = [str(place / f"{row % 37:03d}.png") for row in range(ROWS)]
    (tmp_path / "m.csv").write_text("path\n" + "\n".join(names))
    port = free_port()
    process = start(tmp_path, "out", "--devices", "cpu,cpu", "--root", place, "--metrics-port", str(port))
    while workers_ready(port) < 2:  # else the other one may be opening what is replaced
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    if change == "bundle":
        shutil.rmtree(tmp_path / "model.pscr")
        make_bundle(tmp_path / "model.pscr", exemplars=9)
    elif change == "no bundle":
        shutil.rmtree(tmp_path / "model.pscr")
    else:
        (tmp_path / "m.csv").write_text("path\n" + "\n".join(reversed(names)))
    os.kill(workers_of(process)[0], signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=180)
    assert process.returncode in (1, 2)
    expected = "is not there any more" if change == "no bundle" else "has changed since the run began"
    assert expected in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_the_limit_on_pixels_is_the_same_in_every_process(place, tmp_path):
    for devices in ("cpu", "cpu,cpu"):
        process = start(place, tmp_path / devices, "--devices", devices, "--max-pixels", "1000")
        _, stderr = process.communicate(timeout=180)
        assert process.returncode == 3, stderr  # nothing scored
    one, two = rows(tmp_path / "cpu"), rows(tmp_path / "cpu,cpu")
    assert one == two
    assert one[0]["error"] == "70×40 is 2,800 pixels, over the limit of 1,000 (max_pixels)"
    assert one[0]["width"] == 70


def test_workers_take_modules_from_where_the_command_does(place, tmp_path):
    """Check that none is taken from the folder it is called in, which may hold anything."""
    (tmp_path / "queue.py").write_text("raise SystemExit('imported')\n")
    command = [Path(sys.executable).with_name("pscr-engine"), "score", "--manifest", place / "m.csv"]
    command += ["--bundle", place / "model.pscr", "--devices", "cpu,cpu"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert outcome.returncode == 0, outcome.stderr
    assert "imported" not in outcome.stderr


def test_a_reader_that_goes_away_does_not_stop_the_run(place, tmp_path):
    slow = fault(tmp_path / "often", "import pscr_engine.cli.score_progress as p\np._LINE_SECONDS = 0.0\n")
    for options, streams in (("", "2>&1 | head -1"), ("", "| true"), ("", "2>&-"), ("--log-format json", "2>&-")):
        out = tmp_path / str(abs(hash((options, streams))))
        script = f"set -o pipefail; {shlex.join(map(str, COMMAND))} --out {out} {options} {streams}"
        outcome = subprocess.run(
            ["bash", "-c", script], cwd=place, env={**os.environ, **slow}, capture_output=True, text=True, timeout=180
        )
        assert outcome.returncode == 0, (streams, outcome.stderr)
        assert (out / "_SUCCESS").exists(), streams
        assert '"event"' not in outcome.stdout
