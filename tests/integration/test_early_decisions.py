"""`calibrate`, and `score --keep-above` and `--patches`: real runs that score images by some of their patches."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from pscr_engine.backends.early import early_rule
from pscr_engine.backends.patchwise import PatchwiseEngine
from pscr_engine.bundle import Bundle

from ..helpers.images import encoded
from ..helpers.runs import rows, write_manifest
from ..helpers.tiny import make_bundle

RISK = "0.05"
EARLY = ("decision", "patches_used", "score_low", "score_high")


def image(seed):
    """Make an image whose patches differ: a colour, with blotches of others."""
    chance = np.random.default_rng(seed)
    colours = chance.integers(0, 256, 3) + chance.normal(0, 25, (4, 5, 3))
    return encoded(np.repeat(np.repeat(np.clip(colours, 0, 255), 16, axis=0), 16, axis=1).astype(np.uint8), "PNG")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a calibrated bundle, 200 images, and their plain scores."""
    folder = tmp_path_factory.mktemp("early")
    make_bundle(folder / "plain.pscr")
    for name, count, first in (("calibration", 300, 10_000), ("images", 200, 0)):
        (folder / name).mkdir()
        for index in range(count):
            (folder / name / f"{index:03d}.png").write_bytes(image(first + index))
    (folder / "images" / "007.png").write_bytes(b"no image")
    write_manifest(folder / "images" / "m.csv", [f"{index:03d}.png" for index in range(200)])
    run(folder, "calibrate", "calibration", "--bundle", "plain.pscr", "--out", "model.pscr")
    score(folder, "plain")
    return folder


def run(folder, *command, rc=0):
    words = [sys.executable, "-m", "pscr_engine", *map(str, command)]
    outcome = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=180)
    assert outcome.returncode == rc, outcome.stderr
    return outcome


def score_command(out, *options):
    command = (
        "score",
        "images/m.csv",
        "--bundle",
        "model.pscr",
        "--out",
        out,
        "--devices",
        "cpu",
        "--chunk-rows",
        "16",
    )
    return (*command, "--chunk-rows", "16", *options)


def score(folder, out, *options, rc=0):
    outcome = run(folder, *score_command(out, *options), rc=rc)
    return outcome if rc else rows(folder / out)


def threshold(place):
    return float(np.quantile([row["score"] for row in rows(place / "plain") if row["score"] is not None], 0.8))


def test_calibrate_makes_a_copy_with_what_it_has_measured(place):
    bundle = Bundle.open(place / "model.pscr")
    scores = bundle.patch_scores.scores["fp32"]
    assert scores.shape == (240, 9)  # a fifth of them found the order
    facts = bundle.info.patch_scores
    assert facts["images"] == 240
    assert facts["by_patches"]["fp32"][8] == {"patches": 9, "rms_difference": 0.0, "srcc": pytest.approx(1)}
    errors = [row["rms_difference"] for row in facts["by_patches"]["fp32"]]
    assert errors[0] > errors[3] > errors[7] > 0
    plain = Bundle.open(place / "plain.pscr")
    assert plain.patch_scores is None
    assert plain.digest != bundle.digest
    shown = run(place, "inspect", "model.pscr").stdout
    assert "calibrated  fp32, on 240 images, enough for --risk 0.02; patches by what they tell: " in shown
    again = run(place, "calibrate", "calibration", "--bundle", "plain.pscr", "--out", "model.pscr", rc=2)
    assert "there is a bundle already" in again.stderr


def test_decisions_are_those_of_the_rule_and_exact_where_all_patches_were_used(place):
    limit = threshold(place)
    decided = score(place, "decided", "--keep-above", limit, "--risk", RISK)
    plain = rows(place / "plain")
    bundle = Bundle.open(place / "model.pscr")
    rule = early_rule(bundle, "fp32", limit, float(RISK))
    used = []
    for row, whole in zip(decided, plain, strict=True):
        assert row["status"] == whole["status"]
        if row["status"] != "ok":
            assert all(row[name] is None for name in ("score", *EARLY))
            continue
        used.append(row["patches_used"])
        assert row["decision"] == ("keep" if row["score"] >= limit else "drop")
        if row["patches_used"] == 9:
            assert row["score"] == pytest.approx(whole["score"], abs=1e-5)
            assert row["score_std"] == pytest.approx(whole["score_std"], abs=1e-5)
            assert row["score_low"] == row["score"] == row["score_high"]
        else:
            assert abs(row["score"] - limit) > rule.margins[row["patches_used"] - 1] - 1e-6
            assert row["score_low"] < row["score"] < row["score_high"]
    assert 1 < np.mean(used) < 5
    assert len(set(used)) > 2
    scored = [(row, whole) for row, whole in zip(decided, plain, strict=True) if row["status"] == "ok"]
    assert sum((row["decision"] == "keep") != (whole["score"] >= limit) for row, whole in scored) <= 10
    inside = [row["score_low"] - 1e-5 <= whole["score"] <= row["score_high"] + 1e-5 for row, whole in scored]
    assert sum(inside) >= 189
    success = json.loads((place / "decided" / "_SUCCESS").read_text())
    kept = sum(row["decision"] == "keep" for row in decided)
    counts = {"keep": kept, "drop": 199 - kept, "patches_per_image": round(np.mean(used), 3)}
    assert success["decisions"] == {"threshold": limit, **counts}


def test_the_first_patches_alone(place):
    all_of_them = score(place, "nine", "--patches", 9, "--features")
    for row, whole in zip(all_of_them, rows(place / "plain"), strict=True):
        assert row["status"] == whole["status"]
        if row["status"] == "ok":
            assert row["score"] == pytest.approx(whole["score"], abs=1e-5)
    bundle = Bundle.open(place / "model.pscr")
    engine = PatchwiseEngine(bundle.graph_path("fp32"), bundle.exemplars)
    three = score(place, "three", "--patches", 3)
    assert "decision" not in three[0]
    from PIL import Image

    for row in (three[0], three[150]):
        patches = np.empty((9, 32, 32, 3), np.uint8)
        bundle.info.sampling.sample(np.asarray(Image.open(place / "images" / row["path"])), patches)
        mean = engine.features(patches[list(bundle.patch_scores.order[:3])]).mean(axis=0, keepdims=True)
        assert row["score"] == pytest.approx(float(engine.compare(mean).score[0]), abs=1e-5)


def test_killed_and_resumed_runs_shards_and_workers_decide_the_same(place):
    options = ("--keep-above", threshold(place), "--risk", RISK)
    expected = score(place, "whole", *options)
    command = [sys.executable, "-m", "pscr_engine", *map(str, score_command("killed", *options))]
    with subprocess.Popen(command, cwd=place, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not list((place / "killed").glob("part-*")) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert score(place, "killed", *options) == expected
    for index in range(2):
        run(place, *score_command("shards", *options, "--shard", f"{index}/2"))
    assert rows(place / "shards") == expected
    assert score(place, "workers", *options, "--devices", "cpu,cpu") == expected
    other = score(place, "whole", "--keep-above", threshold(place) + 0.1, "--risk", RISK, rc=2)
    assert "holds a run with another keep above" in other.stderr


def test_the_best_share_is_found_by_a_sample_once(place):
    """Take a sample that is all of the images, so that the share is exact."""
    options = ("--keep-top", "0.2", "--risk", RISK)
    decided = score(place, "top", *options)
    limit = json.loads((place / "top" / "_SUCCESS").read_text())["decisions"]["threshold"]
    assert limit == pytest.approx(threshold(place), abs=1e-5)
    assert decided == score(place, "above", "--keep-above", limit, "--risk", RISK)
    for part in sorted((place / "top").glob("part-*"))[2:]:
        part.unlink()
    (place / "top" / "_SUCCESS").unlink()
    begun = (place / "top" / "_run.json").read_bytes()
    assert score(place, "top", *options) == decided
    assert (place / "top" / "_run.json").read_bytes() == begun
    for index in range(2):
        run(place, *score_command("top-shards", *options, "--shard", f"{index}/2"))
    assert rows(place / "top-shards") == decided
    outcome = run(place, "select", "top", "--kept", "--out", "top.parquet")
    assert f"kept {sum(row['decision'] == 'keep' for row in decided)} of 199" in outcome.stdout


def test_select_and_report_know_decisions(place):
    limit = threshold(place)
    decided = score(place, "for-select", "--keep-above", limit, "--risk", RISK)
    outcome = run(place, "select", "for-select", "--kept", "--out", "kept.parquet")
    kept = [row["row"] for row in decided if row["decision"] == "keep"]
    assert pq.read_table(place / "kept.parquet").column("row").to_pylist() == kept
    assert f"kept {len(kept)} of 199 scored images" in outcome.stdout
    assert "decision: keep" in outcome.stdout
    refused = run(place, "select", "for-select", "--min-score", "3", "--out", "other.parquet", rc=2)
    assert "many of its scores are estimates: use --kept" in refused.stderr
    refused = run(place, "select", "plain", "--kept", "--out", "other.parquet", rc=2)
    assert "this run has decided nothing" in refused.stderr
    run(place, "report", "for-select", "--out", "report.html")
    page = (place / "report.html").read_text()
    assert "so many scores are estimates" in page
    assert f"of {len(decided) - 1}, by " in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-above", "3", "--patches", "3"], "choose one"),
        (["--keep-above", "3", "--keep-top", "0.1"], "has it found: choose one"),
        (["--keep-top", "10"], "must be between 0 and 1, 0.1 for the best tenth"),
        (["--keep-top", "0.1"], "calibrated on 240 images, and --risk 0.005 takes at least 598"),
        (["--risk", "0.01"], "--risk is about decisions: give --keep-above, too"),
        (["--keep-above", "3", "--risk", "0"], "must be between 0 and 1"),
        (["--keep-above", "3", "--risk", "0.005"], "calibrated on 240 images, and --risk 0.005 takes at least 598"),
        (["--keep-above", "nan"], "must be a finite score"),
        (["--keep-above", "3", "--features"], "--features are the mean over all patches"),
        (["--patches", "10"], "have 9 patches; take from 1 to 9"),
        (["--patches", "2", "--backend", "openvino"], "computed by onnxruntime, not openvino"),
        (["--patches", "2", "--known", "plain"], "--known takes over scores by all patches"),
        (["--patches", "2", "--bundle", "plain.pscr"], "plain.pscr: has no calibration, which --patches 2 needs"),
        (["--patches", "2", "--bundle", "a=model.pscr", "--bundle", "b=plain.pscr"], "for runs with one bundle"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(place, options, message):
    if "--bundle" in options:
        command = ("score", "images/m.csv", "--out", "no", "--devices", "cpu", *options)
    else:
        command = score_command("no", *options)
    outcome = run(place, *command, rc=1 if "calibrat" in message else 2)
    assert message in outcome.stderr
    assert outcome.stderr.strip().count("\n") <= 1
    assert not (place / "no").exists()


def test_earlier_decisions_are_not_taken_over_as_scores(place):
    score(place, "early", "--keep-above", threshold(place), "--risk", RISK)
    outcome = score(place, "new", "--known", "early", rc=2)
    assert "was scored with another keep above" in outcome.stderr


def test_too_few_images_to_calibrate_on(place):
    (place / "few").mkdir(exist_ok=True)
    for index in range(22):
        (place / "few" / f"{index}.png").write_bytes(image(index))
    outcome = run(place, "calibrate", "few", "--bundle", "plain.pscr", "--out", "few.pscr", rc=2)
    assert "too few to calibrate on" in outcome.stderr
    assert not os.path.lexists(place / "few.pscr")
