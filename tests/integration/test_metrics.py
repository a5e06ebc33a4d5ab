"""`pscr-engine score --metrics-file` and `--metrics-port`: what they say of whole runs, and what Prometheus reads."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pyarrow.parquet as pq
import pytest

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

pytest.importorskip("prometheus_client")

from prometheus_client.openmetrics.parser import text_string_to_metric_families

ROWS, CHUNK = 1000, 20
# Follows a file, so that a test can have a run go slowly, or fail.
_AT_START = """
import pathlib, time
import pscr_engine.stages.infer as p
control = pathlib.Path({control!r})
def infer(*arguments, original=p.infer, **options):
    mode = control.read_text()
    if mode == "slow":
        time.sleep(0.1)
    if mode == "fault":
        raise ArithmeticError("injected")
    return original(*arguments, **options)
p.infer = infer
"""


class Place:
    """A folder with a bundle and a manifest, in which runs go slowly if told to."""

    def __init__(self, folder):
        self.folder, self.control = folder, folder / "control"
        self.control.write_text("")

    def start(self, out, *options, **environment):
        command = [sys.executable, "-m", "pscr_engine", "score", "m.csv", "--chunk-rows", CHUNK, "--out", out]
        paths = [str(self.folder / "start"), *filter(None, sys.path)]
        return subprocess.Popen(
            [*map(str, command), *map(str, options)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        )

    def run(self, out, *options, code=0, **environment):
        process = self.start(out, *options, **environment)
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == code, stderr
        return stderr

    def success(self, out):
        return json.loads((self.folder / out / "_SUCCESS").read_text())

    def rows(self, out):
        return sum(pq.read_metadata(part).num_rows for part in (self.folder / out).glob("part-*.parquet"))

    def metrics(self, name):
        return parsed((self.folder / name).read_text())


def parsed(text):
    """Return (name without the prefix, values of its labels...) → value."""
    assert text.endswith("# EOF\n")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name.removeprefix("pscr_engine_"), *sample.labels.values()): sample.value for sample in samples}


def named(metrics, name):
    """Return label → value of a metric with one label, without zeros."""
    return {key[1]: value for key, value in metrics.items() if key[0] == name and value}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    make_bundle(folder / "model.pscr")
    for index in range(40):
        (folder / f"{index:03d}.png").write_bytes(encoded(pixels(40 + index, 70, index)))
    (folder / "037.png").write_bytes(b"broken")
    names = [f"{row % 41:03d}.png" for row in range(ROWS)]  # 040.png is missing
    (folder / "m.csv").write_text("path\n" + "\n".join(names) + "\n")
    (folder / "start").mkdir()
    (folder / "start" / "sitecustomize.py").write_text(_AT_START.format(control=str(folder / "control")))
    return Place(folder)


@pytest.fixture(autouse=True)
def at_full_speed(place):
    yield
    place.control.write_text("")


def until(process, condition):
    """Wait until a condition holds, while a process runs."""
    deadline = time.monotonic() + 120
    while not (value := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def read_bytes(place):
    names = (place.folder / "m.csv").read_text().split()[1:]
    return sum(file.stat().st_size for name in names if (file := place.folder / name).exists())


def assert_whole(place, out, metrics):
    success = place.success(out)
    assert named(metrics, "rows_total") == success["status"]
    assert named(metrics, "stage_images_total") == {name: stage["items"] for name, stage in success["stages"].items()}
    seconds = {name: round(value, 6) for name, value in named(metrics, "stage_seconds_total").items()}
    assert seconds == {name: stage["seconds"] for name, stage in success["stages"].items()}
    assert round(metrics["images_per_second",], 3) == success["images_per_second"]
    assert round(metrics["scoring_seconds",], 3) == success["seconds"]
    assert round(metrics["startup_seconds",], 3) == success["startup_seconds"]
    assert metrics["run_rows",] == metrics["run_rows_done",] == success["rows"] == ROWS
    assert metrics["chunks_total",] == success["parts"] == ROWS / CHUNK
    parts = list((place.folder / out).glob("part-*.parquet"))
    assert metrics["written_bytes_total",] == sum(part.stat().st_size for part in parts)
    assert metrics["read_bytes_total",] == read_bytes(place)
    assert named(metrics, "run_state") == {"complete": 1}
    assert not named(metrics, "stage_waiting_images") | named(metrics, "open_chunks")
    assert not metrics["uncommitted_rows",]


@pytest.mark.parametrize("devices", ["cpu", pytest.param("cpu,cpu", marks=pytest.mark.slow)])
def test_counters_equal_what_success_says(place, devices):
    out = f"whole-{devices}"
    place.run(out, "--devices", devices, "--metrics-file", f"{out}.prom")
    metrics = place.metrics(f"{out}.prom")
    assert_whole(place, out, metrics)
    assert named(metrics, "workers") == {"cpu": devices.count("cpu")}
    run = json.loads((place.folder / out / "_run.json").read_text())
    assert not [name for name in (*run["settings"], *run["identity"]) if "metrics" in name]
    place.run(out, "--metrics-file", f"{out}.prom")  # complete already: this process does nothing
    again = place.metrics(f"{out}.prom")
    assert named(again, "rows_total") == {}
    assert again["run_rows_done",] == again["run_rows",] == ROWS
    assert named(again, "run_state") == {"complete": 1}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's prometheus")
def test_promtool_reads_the_file(place):
    place.run("checked", "--metrics-file", "checked.prom")
    outcome = subprocess.run(
        ["promtool", "check", "metrics"],
        input=(place.folder / "checked.prom").read_text("utf-8"),
        capture_output=True,
        text=True,
    )
    assert "error" not in outcome.stderr
    # It reads the older format, in which a counter's help is under the name with "_total".
    assert all(line.endswith("_total no help text") for line in outcome.stderr.splitlines()), outcome.stderr


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_interrupted_and_gone_on_with(place, devices):
    out = f"resumed-{devices}"
    options = ["--devices", devices, "--metrics-file", f"{out}.prom"]
    place.control.write_text("slow")
    process = place.start(out, *options)
    until(process, lambda: place.rows(out) >= 60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    first, done = place.metrics(f"{out}.prom"), place.rows(out)
    assert named(first, "run_state") == {"interrupted": 1}
    # A part may be there of which the workers could not tell any more.
    here = sum(named(first, "rows_total").values())
    assert 60 - CHUNK * 2 <= here <= done
    assert first["run_rows_done",] == here
    assert named(first, "workers") == {"cpu": devices.count("cpu")}
    place.control.write_text("")
    place.run(out, *options)
    second = place.metrics(f"{out}.prom")
    assert sum(named(second, "rows_total").values()) == ROWS - done
    assert second["chunks_total",] == (ROWS - done) / CHUNK
    assert second["run_rows_done",] == second["run_rows",] == ROWS
    assert named(second, "run_state") == {"complete": 1}


@pytest.mark.slow
def test_a_worker_that_is_killed(place):
    place.control.write_text("slow")
    process = place.start("bereft", "--devices", "cpu,cpu", "--metrics-file", "bereft.prom")
    until(process, lambda: place.rows("bereft") >= 60)
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True)
    workers = [int(line.split()[0]) for line in listed.stdout.splitlines() if "worker_process" in line]
    os.kill(workers[0], signal.SIGKILL)
    place.control.write_text("")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    metrics = place.metrics("bereft.prom")
    assert named(metrics, "rows_total") == place.success("bereft")["status"]
    assert metrics["workers_lost_total",] == 1
    assert 1 <= metrics["chunk_retries_total",] <= 2
    assert not named(metrics, "stage_waiting_images")


@pytest.mark.slow
def test_a_run_that_fails_or_loses_too_much(place):
    place.run("too-many", "--metrics-file", "too-many.prom", "--max-failure-rate", "0.001", code=3)
    metrics = place.metrics("too-many.prom")
    assert named(metrics, "run_state") == {"too_many_failures": 1}
    assert named(metrics, "rows_total") == place.success("too-many")["status"]
    place.control.write_text("fault")
    process = place.start("faulty", "--metrics-file", "faulty.prom")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert named(place.metrics("faulty.prom"), "run_state") == {"failed": 1}


@pytest.mark.slow
def test_rows_that_are_scored_again_are_counted_again(place):
    place.run("again", "--metrics-file", "again.prom")
    failed = {name: count for name, count in place.success("again")["status"].items() if name != "ok"}
    place.run("again", "--retry-failed", "--metrics-file", "again.prom")
    metrics = place.metrics("again.prom")
    assert named(metrics, "rows_total") == failed
    assert metrics["run_rows_done",] == metrics["run_rows",] == ROWS


@pytest.mark.slow
def test_shards_have_metrics_of_their_own(place):
    for index, state in (0, "shard_complete"), (1, "complete"):
        place.run("shards", "--shard", f"{index}/2", "--metrics-file", f"shard-{index}.prom")
        metrics = place.metrics(f"shard-{index}.prom")
        assert named(metrics, "run_state") == {state: 1}
        assert metrics["run_rows",] == sum(named(metrics, "rows_total").values()) == ROWS / 2


@pytest.mark.slow
def test_what_is_refused_leaves_nothing(place):
    missing = place.folder / "missing"
    missing.mkdir()
    (missing / "sitecustomize.py").write_text("import sys\nsys.modules['prometheus_client'] = None\n")
    without = {"PYTHONPATH": os.pathsep.join([str(missing), *filter(None, sys.path)])}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for options, code, message, environment in (
            (["--metrics-port", port], 2, f"--metrics-port {port}: can't listen there on 127.0.0.1 (Address", {}),
            (["--metrics-port", "70000"], 2, "--metrics-port 70000: must be from 1 to 65535", {}),
            (["--metrics-host", "::"], 2, "--metrics-host says where a port is: give --metrics-port, too", {}),
            (["--metrics-file", "s3://a/m"], 2, "--metrics-file s3://a/m: must be a file on this host", {}),
            (["--metrics-file", "gone/m.prom"], 2, "gone: no such folder", {}),
            (["--metrics-file", "start"], 2, "start: is a folder", {}),
            (["--metrics-file", "m.csv"], 2, "is there already, and no earlier metrics file", {}),
            (["--metrics-file", "refused"], 2, "is in the output folder of a run", {}),
            (
                ["--metrics-file", "m.prom"],
                1,
                "--metrics-file needs prometheus-client: pip install 'pscr-e",
                without,
            ),
            (["--metrics-port", "0"], 1, "--metrics-port needs prometheus-client: pip install", without),
        ):
            stderr = place.run("refused", *options, code=code, **environment)
            assert stderr.startswith("error: "), stderr
            assert message in stderr
            assert stderr.count("\n") == 1
            assert not (place.folder / "refused").exists()
            assert not (place.folder / "m.prom").exists()


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def address_of(process):
    line = process.stderr.readline()
    assert line.startswith("metrics: http://127.0.0.1:"), line
    return line.split()[1]


@pytest.mark.slow
def test_the_port_answers_while_a_run_goes_on(place):
    place.control.write_text("slow")
    process = place.start("scraped", "--metrics-port", "0")
    address = address_of(process)
    request = urllib.request.Request(address, headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    def scraped():
        with urllib.request.urlopen(request, timeout=10) as answer:
            return parsed(answer.read().decode())

    first = until(process, lambda: (found := scraped())["chunks_total",] and found)
    assert named(first, "run_state") == {"running": 1}
    assert 0 < first["run_rows_done",] < ROWS == first["run_rows",]
    assert first["open_chunks", "at_workers"] >= 1
    waiting = until(process, lambda: (found := scraped())["stage_waiting_images", "infer"] and found)
    assert waiting["rows_total", "ok"] >= first["rows_total", "ok"]
    assert "pscr_engine_rows_total" in get(address)  # the older format, as a browser gets it
    place.control.write_text("")
    process.communicate(timeout=60)
    assert process.returncode == 0
    with pytest.raises(urllib.error.URLError):
        get(address)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None and not os.environ.get("CI"), reason="needs Debian's prometheus")
def test_prometheus_scrapes_it(place, tmp_path):
    """Let a real Prometheus scrape a run, and ask it what it has seen."""
    place.control.write_text("slow")
    process = place.start("watched", "--metrics-port", "0", "--metrics-file", "watched.prom")
    target = urllib.parse.urlsplit(address_of(process)).netloc
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: pscr, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={listen}"]
    with (tmp_path / "log").open("w") as log:
        prometheus = subprocess.Popen(["prometheus", *options], cwd=tmp_path, stdout=log, stderr=log)

    def asked(query):
        try:
            answer = json.loads(get(f"http://{listen}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
        except OSError:
            assert prometheus.poll() is None, (tmp_path / "log").read_text()
            return []
        found = answer["data"]["result"]
        return [(each["metric"], each["value"] if "value" in each else each["values"]) for each in found]

    try:
        until(process, lambda: any(float(value[1]) for _, value in asked('pscr_engine_rows_total{status="ok"}')))
        ((labels, _),) = asked("pscr_engine_run_info")
        assert (labels["bundle"], labels["precision"], labels["backend"]) == ("model.pscr", "fp32", "onnxruntime")
        assert [labels["state"] for labels, _ in asked("pscr_engine_run_state == 1")] == ["running"]
        rates = until(process, lambda: asked("rate(pscr_engine_stage_seconds_total[1m])"))
        assert {labels["stage"] for labels, _ in rates} >= {"decode", "infer"}
        assert [value[1] for _, value in asked("up")] == ["1"]
        meta = json.loads(get(f"http://{listen}/api/v1/metadata"))["data"]
        kinds = {name: found[0]["type"] for name, found in meta.items() if name.startswith("pscr_engine_")}
        assert kinds.get("pscr_engine_rows", kinds.get("pscr_engine_rows_total")) == "counter"
        assert kinds["pscr_engine_run_rows"] == "gauge"
        place.control.write_text("")
        process.communicate(timeout=60)
        assert process.returncode == 0
        seen = {}
        for labels, values in asked("pscr_engine_rows_total[10m]"):
            numbers = [float(value) for _, value in values]
            assert numbers == sorted(numbers)
            seen[labels["status"]] = numbers[-1]
        final = named(place.metrics("watched.prom"), "rows_total")
        assert all(value <= final.get(status, 0) for status, value in seen.items())
        assert final == place.success("watched")["status"]
    finally:
        prometheus.terminate()
        prometheus.wait(30)
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_on_ray_the_driver_has_the_totals(place):
    pytest.importorskip("ray")
    options = ["--runner", "ray", "--ray-address", "local", "--cpus-per-worker", "1", "--workers", "2"]
    place.run("by-ray", *options, "--metrics-file", "by-ray.prom", RAY_USAGE_STATS_ENABLED="0")
    metrics = place.metrics("by-ray.prom")
    assert_whole(place, "by-ray", metrics)
    assert 1 <= metrics["workers", "cpu"] <= 2


def test_python(place, monkeypatch):
    from pscr_engine import ScoreConfig, Scorer

    monkeypatch.chdir(place.folder)
    config = ScoreConfig("m.csv", bundle="model.pscr", out="python", chunk_rows=CHUNK, metrics_file="python.prom")
    Scorer.score_manifest(config)
    assert_whole(place, "python", place.metrics("python.prom"))
