"""Where metrics may be, what is refused before a run begins, and what a run ends with."""

import socket
import sys
import time
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from threading import Event

import pytest

from pscr_engine.config import ScoreConfig
from pscr_engine.errors import MissingDependencyError, OutputError, TooManyFailuresError, UsageError
from pscr_engine.metrics import Figures, metered

pytest.importorskip("prometheus_client")

from pscr_engine.metrics import file as metrics_file

HOST = "127.0.0.1"


def state(path):
    lines = [line for line in path.read_text().splitlines() if line.startswith("pscr_engine_run_state")]
    return [line.split('"')[1] for line in lines if line.endswith(" 1.0")]


def test_the_file_is_there_from_the_start_and_stays(tmp_path):
    file = tmp_path / "m.prom"
    with metered(file, None, HOST, tmp_path / "out") as meter:
        assert state(file) == ["starting"]
        meter.watch(lambda: Figures("onnxruntime", status={"ok": 7}))
        meter.end("complete")
    assert state(file) == ["complete"]
    assert 'pscr_engine_rows_total{status="ok"} 7.0' in file.read_text()
    assert file.read_text().endswith("# EOF\n")
    assert [each.name for each in tmp_path.iterdir()] == ["m.prom"]
    with metered(file, None, HOST, tmp_path / "out"):  # earlier metrics are replaced
        assert state(file) == ["starting"]


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (TooManyFailuresError("x"), "too_many_failures"),
        (OutputError("x"), "failed"),
        (ArithmeticError("x"), "failed"),
        (SystemExit(1), "failed"),
    ],
)
def test_how_a_run_ended_is_kept(tmp_path, error, ended):
    with pytest.raises(type(error)), metered(tmp_path / "m.prom", None, HOST, None):
        raise error
    assert state(tmp_path / "m.prom") == [ended]


def test_it_is_written_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_file, "SECONDS", 0.02)
    asked = []

    def figures():
        asked.append(1)
        return Figures()

    with metered(tmp_path / "m.prom", None, HOST, None) as meter:
        meter.watch(figures)
        while len(asked) < 5:
            time.sleep(0.01)


def test_a_file_that_cannot_be_written_any_more_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(metrics_file, "SECONDS", 0.02)
    folder = tmp_path / "folder"
    folder.mkdir()
    asked = []

    def figures():
        asked.append(1)
        return Figures()

    with metered(folder / "m.prom", None, HOST, None) as meter:
        (folder / "m.prom").unlink()
        folder.rmdir()
        meter.watch(figures)
        while len(asked) < 5:
            time.sleep(0.01)
    (message,) = caplog.messages
    assert message.startswith(f"{folder}/m.prom: metrics can't be written ([Errno 2] No such file or directory: ")
    assert message.endswith("; that is no trouble of the run")


def test_a_file_system_that_lets_nobody_return_does_not_hold_the_run_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(metrics_file, "LAST_SECONDS", 0.1)
    answers = Event()
    with metered(tmp_path / "m.prom", None, HOST, None):
        monkeypatch.setattr(metrics_file, "atomic_file", lambda path: answers.wait(30) and nullcontext(path))
    assert caplog.messages == [
        f"{tmp_path}/m.prom: metrics can't be written (it takes too long); that is no trouble of the run"
    ]
    answers.set()


def refused(tmp_path, file, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=message) as caught, metered(file, None, HOST, tmp_path / "out"):
        pytest.fail("begun")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_places_where_the_file_cannot_be(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "m.csv").write_text("path\na.png\n")
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "_run.json").write_text("{}")
    (tmp_path / "pipe").symlink_to("/dev/null")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path, tmp_path / "folder", "is a folder")
    refused(tmp_path, tmp_path / "gone" / "m.prom", "no such folder; make it")
    refused(tmp_path, tmp_path / "m.csv", "is there already, and no earlier metrics file")
    refused(tmp_path, tmp_path / "pipe", "is there already, and no earlier metrics file")
    refused(tmp_path, tmp_path / "loop", "can't be followed")
    refused(tmp_path, tmp_path / "out", "is in the output folder of a run")
    refused(tmp_path, tmp_path / "earlier" / "part-000000.parquet", "is in the output folder of a run")
    (tmp_path / "out").mkdir()
    for name in ("_SUCCESS", "_run.json", "part-000000.parquet", "m.prom"):
        refused(tmp_path, tmp_path / "out" / name, "is in the output folder of a run")
    (tmp_path / "to-out").symlink_to("out")
    refused(tmp_path, tmp_path / "to-out" / "m.prom", "is in the output folder of a run")
    assert (tmp_path / "m.csv").read_text() == "path\na.png\n"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder where nobody may write")
def test_a_folder_where_nobody_may_write(tmp_path):
    refused(tmp_path, Path("/proc/m.prom"), "can't write there")


def test_a_link_and_an_empty_file_are_written_to(tmp_path):
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    with metered(tmp_path / "link", None, HOST, None):
        pass
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text().endswith("# EOF\n")


def test_a_free_port_is_named_in_the_log(caplog):
    caplog.set_level("INFO", "pscr_engine")
    with metered(None, 0, HOST, None) as meter:
        meter.watch(lambda: Figures("onnxruntime", status={"ok": 5}))
        address = caplog.messages[0].removeprefix("metrics: ")
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b'pscr_engine_rows_total{status="ok"} 5.0' in answer.read()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=10)


@pytest.mark.parametrize("host", [HOST, "not a host", "203.0.113.7", "a" * 70 + ".example"])
def test_a_port_that_cannot_be_had_ends_it_before_there_is_a_file(tmp_path, host):
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"metrics_port {port}: can't listen there on .*; choose") as caught,
            metered(tmp_path / "m.prom", port, host, None),
        ):
            pytest.fail("begun")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    advice = r"metrics_file needs prometheus-client: pip install 'pscr-engine\[metrics\]'"
    with pytest.raises(MissingDependencyError, match=advice), metered(tmp_path / "m.prom", None, HOST, None):
        pytest.fail("begun")
    with metered(None, None, HOST, None):
        pass  # nobody asked for it


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics_file": "s3://bucket/m.prom"}, "metrics_file s3://bucket/m.prom: must be a file on this host"),
        ({"metrics_file": "file:///tmp/m.prom"}, "must be a file on this host, not a URI"),
        ({"metrics_port": -1}, "metrics_port -1: must be from 1 to 65535, or 0"),
        ({"metrics_port": 65536}, "must be from 1 to 65535"),
        ({"metrics_host": "0.0.0.0"}, "metrics_host says where a port is: give metrics_port, too"),
        ({"metrics_host": "", "metrics_port": 0}, "metrics_host is empty"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        ScoreConfig("m.csv", **settings)


def test_text_is_a_path():
    assert ScoreConfig("m.csv", metrics_file="m.prom").metrics_file == Path("m.prom")
