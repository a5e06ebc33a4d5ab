"""Pillow during a run, in processes of its own: what libraries write to descriptor 2 can't be seen from within."""

import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from PIL import Image

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle


def broken_tiffs(folder):
    """Write TIFFs that make libtiff, or Pillow itself, talk; return how many."""
    folder.mkdir()
    source = Image.fromarray(pixels(60, 60))
    number = 0
    for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4", "packbits"):
        buffer = io.BytesIO()
        (source.convert("1") if kind == "group4" else source).save(buffer, "TIFF", compression=kind)
        for start in (40, 90, 140):
            data = bytearray(buffer.getvalue())
            data[start : start + 40] = b"\xff" * 40
            (folder / f"{number:02d}.tif").write_bytes(data)
            number += 1
    data = bytearray(encoded(pixels(60, 60), "TIFF"))
    at = data.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel
    data[at + 8 : at + 10] = struct.pack("<H", 2048)
    (folder / f"{number:02d}.tif").write_bytes(data)
    return number + 1


def statuses(out):
    return [row for part in sorted(out.glob("part-*.parquet")) for row in pq.read_table(part)["status"].to_pylist()]


def test_they_do_talk(tmp_path):
    """Decode without a run, where Pillow and its libtiff print: else the tests below would show nothing."""
    broken_tiffs(tmp_path / "images")
    code = """
import io, sys
from pathlib import Path
from pscr_engine.records import Query
from pscr_engine.stages.decode import DecodeOptions, decode
for path in sorted(Path(sys.argv[1]).iterdir()):
    decode(Query(0, data=path.read_bytes()), DecodeOptions())
"""
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "images"], capture_output=True, text=True).stderr
    for words in ("scanline", "Bad code word", "code not yet in table", "More samples per pixel"):
        assert words in said


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_every_line_is_json_when_asked_for(cli, tmp_path, devices):
    count = broken_tiffs(tmp_path / "images")
    (tmp_path / "images" / "good.png").write_bytes(encoded(pixels(50, 40)))
    make_bundle(tmp_path / "model.pscr")
    options = ("--devices", devices, "--chunk-rows", 4, "--log-format", "json")
    outcome = cli("score", "--manifest", "images", "--bundle", "model.pscr", *options)
    assert outcome.returncode == 0, outcome.stderr
    events = [json.loads(line) for line in outcome.stderr.splitlines()]
    assert events[-1]["event"] == "done"
    assert len(events) < 8, "nothing per image"
    found = statuses(tmp_path / "scores")
    assert len(found) == count + 1
    assert {"ok", "undecodable"} == {*found}


def test_text_has_no_line_per_image(cli, tmp_path):
    broken_tiffs(tmp_path / "images")
    make_bundle(tmp_path / "model.pscr")
    outcome = cli("score", "--manifest", "images", "--bundle", "model.pscr", "--devices", "cpu")
    assert outcome.returncode == 0
    assert len(outcome.stderr.splitlines()) < 4, outcome.stderr


def test_a_terminal_shows_the_bar_and_nothing_else(tmp_path):
    broken_tiffs(tmp_path / "images")
    make_bundle(tmp_path / "model.pscr")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", "images", "--bundle", "model.pscr"]
    process = subprocess.Popen([*command, "--devices", "cpu"], cwd=tmp_path, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, shown
    assert "━".encode() in shown, "the bar"
    for words in (b"line", b"word", b"table", b"samples", b"JPEG", b"tempfile"):
        assert words not in shown


def test_last_words_of_a_crash_are_not_lost():
    code = """
import ctypes
from pscr_engine.stages.pillow import pillow_for_a_run
with pillow_for_a_run():
    ctypes.CDLL(None).perror(b"a library speaks")
    ctypes.CDLL(None).abort()
"""
    outcome = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert outcome.returncode == -signal.SIGABRT
    assert "a library speaks" in outcome.stderr
    assert "Fatal Python error: Aborted" in outcome.stderr


def test_the_handlers_return_after_the_run(tmp_path):
    """Read a broken file within and after a run: a program that uses the library may want to hear of it."""
    broken_tiffs(tmp_path / "images")
    code = """
import sys
from PIL import Image
from pscr_engine.stages.pillow import pillow_for_a_run
def read():
    try:
        Image.open(sys.argv[1]).convert("RGB")
    except OSError:
        pass
with pillow_for_a_run():
    with pillow_for_a_run():
        read()
    read()
print("after", file=sys.stderr, flush=True)
read()
"""
    broken = tmp_path / "images" / "00.tif"
    said = subprocess.run([sys.executable, "-c", code, broken], capture_output=True, text=True).stderr.splitlines()
    assert said[0] == "after"
    assert len(said) == 2


def test_defects_and_warnings_are_json_too():
    code = """
import threading, warnings
from pscr_engine.cli import logs
logs.configure(as_json=True)
logs.all_as_json()
warnings.warn("beware\\nof this")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise TypeError("a defect")
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    warning, thread, defect = map(json.loads, outcome.stderr.splitlines())
    assert (warning["level"], warning["message"]) == ("warning", "UserWarning: beware\nof this")
    assert thread["message"] == "ZeroDivisionError: division by zero"
    assert (defect["event"], defect["message"]) == ("error", "TypeError: a defect")
    assert "Traceback" in defect["traceback"]
    assert outcome.returncode == 1
