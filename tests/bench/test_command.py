"""`pscr-engine bench` as a process."""

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from ..helpers.images import bomb, encoded, pixels
from ..helpers.tiny import W_DELTA, make_bundle

QUICK = ("--seconds", "0.05", "--rounds", "2", "--size", "64x48")
STAGES = ["fetch", "decode", "sample", "infer", "sink"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Measure two devices once; return the folder with the record, and what the command said."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("bench")
    make_bundle(folder / "model.pscr")
    command = [sys.executable, "-m", "pscr_engine", "bench", "--devices", "cpu,cpu", "--out", "two.json", *QUICK]
    outcome = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert outcome.returncode == 0, outcome.stderr
    return folder, outcome


@pytest.mark.medium
def test_the_record_holds_every_figure(measured):
    folder, outcome = measured
    record = json.loads((folder / "two.json").read_text())
    assert [*record["stages_alone"]] == STAGES
    for rate in record["stages_alone"].values():
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert [*record["stages_alone"]["decode"]["by_format"]] == ["jpeg", "png", "webp"]
    assert [len(run["devices"]) for run in record["runs"]] == [1, 2]
    one, two = (run["images_per_second"]["median"] for run in record["runs"])
    assert record["runs"][1]["scaling_efficiency"] == pytest.approx(two / (2 * one), abs=1e-3)
    assert all(run["status"] == {"ok": run["rows"]} for run in record["runs"])
    engine = record["engine"]
    assert (engine["backend"], engine["precision"], engine["batch_size"]) == ("onnxruntime", "fp32", 1)
    assert engine["arithmetic"]["share"] == pytest.approx(
        record["stages_alone"]["infer"]["median"]
        * engine["work_per_image"]["multiply_adds"]
        / 1e9
        / engine["arithmetic"]["peak_gmac_per_second"],
        abs=1e-3,
    )
    assert record["slowest_stage"] == min(STAGES, key=lambda name: record["stages_alone"][name]["median"])
    assert record["images"]["made up"] == "64x48"
    for stage in STAGES:
        assert f"{stage} alone" in outcome.stdout
    assert "scaling efficiency" in outcome.stdout
    assert "measuring: infer alone" in outcome.stderr


@pytest.mark.medium
def test_the_chart_is_a_picture_with_a_description(measured):
    folder, _ = measured
    root = ET.parse(folder / "two.svg").getroot()
    assert root.tag.endswith("svg")
    text = " ".join(root.itertext())
    for stage in STAGES:
        assert f"{stage} alone" in text
    assert root.attrib["role"] == "img"


@pytest.mark.medium
def test_compare_puts_records_side_by_side(measured, cli, tmp_path):
    folder, _ = measured
    record = json.loads((folder / "two.json").read_text())
    record["runs"] = record["runs"][:1]
    record["runs"][0]["images_per_second"]["median"] *= 3
    record["runs"][0]["joules_per_image"] = 0.25
    record["images"]["bytes_per_image"] += 1
    (tmp_path / "<fast>.json").write_text(json.dumps(record))
    outcome = cli("bench", "compare", folder / "two.json", "<fast>.json", "--out", "both.svg")
    assert outcome.returncode == 0, outcome.stderr
    assert "images differ in bytes_per_image" in outcome.stderr
    line = next(line for line in outcome.stdout.splitlines() if line.startswith("one device"))
    assert line.split()[-1] == "3.00"
    joules = next(line for line in outcome.stdout.splitlines() if line.startswith("J per image"))
    assert joules.split()[-3:] == ["-", "0.25", "-"] or joules.split()[-2] == "0.25"
    assert "<fast>" in " ".join(ET.parse(tmp_path / "both.svg").getroot().itertext())


def test_own_images_and_those_that_are_none(cli, tiny, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.png").write_bytes(encoded(pixels(50, 40)))
    (images / "bad.png").write_bytes(b"no image")
    outcome = cli("bench", "--bundle", tiny.path, "--images", images, *QUICK)
    assert outcome.returncode == 0, outcome.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["images"]["images"] == 1
    (images / "good.png").unlink()
    outcome = cli("bench", "--bundle", tiny.path, "--images", images, *QUICK)
    assert (outcome.returncode, outcome.stderr.count("\n")) == (2, 1)
    assert "can be decoded" in outcome.stderr


def test_a_relative_folder_of_images_whose_names_need_not_be_text(cli, tiny, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Path(os.fsdecode(bytes(images) + b"/caf\xe9.png")).write_bytes(encoded(pixels(50, 40)))
    (images / "dangling.png").symlink_to("nowhere")
    (images / "huge.png").write_bytes(bomb())
    outcome = cli("bench", "--bundle", tiny.path, "--images", "images", *QUICK)
    assert outcome.returncode == 0, outcome.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    assert all(run["status"] == {"ok": run["rows"]} for run in record["runs"])
    assert (record["images"]["images"], record["images"]["formats"]) == (1, {"png": 1})
    assert record["images"]["folder"] == "images"


def test_a_row_that_is_not_ok_ends_it(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.helpers.tiny.W_DELTA", np.full_like(W_DELTA, np.inf))  # no image gets a score
    make_bundle(tmp_path / "broken.pscr")
    outcome = cli("bench", "--bundle", "broken.pscr", *QUICK)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert "its score is not a finite number" in outcome.stderr.splitlines()[-1]
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "big"], "'big' is no size: write width and height, as in 512x512"),
        (["--size", "0x10"], "sides must be from 1"),
        (["--quality", "101"], "must be from 1 to 100"),
        (["--seconds", "0"], "--seconds 0: must be above 0"),
        (["--rounds", "0"], "--rounds 0: must be from 1"),
        (["--images", "nowhere"], "--images nowhere"),
        (["--out", "x.svg"], "name the record, as in x.json"),
        (["--out", "nowhere/x.json"], "nowhere: no such folder"),
        (["--bundle", "nowhere"], "no such bundle"),
        (["compare", "a.json"], "name 2 to 26"),
        (["compare", "a.json", "b.json"], "a.json: No such file"),
        (["compare", "tiny.pscr/bundle.json", "b.json"], "not a record of pscr-engine bench"),
    ],
)
def test_wrong_use_is_one_line(cli, tiny, arguments, message):
    defaults = [] if arguments[0] == "compare" or "--bundle" in arguments else ["--bundle", tiny.path]
    outcome = cli("bench", *defaults, *arguments)
    assert outcome.returncode in (1, 2)
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
