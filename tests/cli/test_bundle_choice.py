"""Which bundle commands take, as users see it: by name, by path, and when none is named."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from pscr_engine.models import DEFAULT_MODEL

from ..helpers.images import encoded, pixels
from ..helpers.shipped import ship
from ..helpers.tiny import expected_score, make_bundle

BY_DEFAULT = f"bundle {DEFAULT_MODEL} (the shipped model: no model.pscr here)"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.png").write_bytes(encoded(pixels(50, 60, index)))
    return folder


@pytest.fixture
def shipped(tmp_path_factory):
    """Make the same bundle as the one that the copied package ships."""
    return ship(tmp_path_factory.mktemp("same"))


def scores(out):
    return [row["score"] for part in sorted(out.glob("part-*")) for row in pq.read_table(part).to_pylist()]


def test_score_takes_the_shipped_model_and_says_so(cli_with_model, tmp_path, images, shipped):
    outcome = cli_with_model("score", "--manifest", "images")
    assert outcome.returncode == 0, outcome.stderr
    assert f"{BY_DEFAULT}: tiny, fp32, 5 exemplars\n" in outcome.stderr
    assert scores(tmp_path / "scores")[0] == pytest.approx(expected_score(shipped, pixels(50, 60)), abs=1e-5)
    run = json.loads((tmp_path / "scores" / "_run.json").read_text())
    assert run["settings"]["bundle"] == DEFAULT_MODEL
    assert (run["bundle"]["shipped_model"], run["bundle"]["by_default"]) == (DEFAULT_MODEL, True)
    assert run["bundle"]["path"].endswith(f"models/{DEFAULT_MODEL}.pscr")
    named = cli_with_model("score", "--manifest", "images", "--bundle", DEFAULT_MODEL)  # goes on: it is the same
    assert named.returncode == 0
    assert "is complete already" in named.stderr


def test_a_run_is_not_continued_with_a_model_that_has_appeared_since(cli_with_model, tmp_path, images):
    assert cli_with_model("score", "--manifest", "images").returncode == 0
    make_bundle(tmp_path / "model.pscr", exemplars=3)
    refused = cli_with_model("score", "--manifest", "images")
    assert refused.returncode == 2
    assert (
        f"error: scores: holds a run with another bundle (the shipped model {DEFAULT_MODEL}, taken since none was "
        f"named, now model.pscr, taken since none was named); go on with --bundle {DEFAULT_MODEL}, choose another "
        "--out or use --overwrite\n"
    ) in refused.stderr
    assert cli_with_model("score", "--manifest", "images", "--bundle", DEFAULT_MODEL).returncode == 0
    (tmp_path / "scores").rename(tmp_path / "old")
    assert "bundle model.pscr (in this folder): tiny" in cli_with_model("score", "--manifest", "images").stderr
    shutil.rmtree(tmp_path / "model.pscr")
    refused = cli_with_model("score", "--manifest", "images")
    assert f"now the shipped model {DEFAULT_MODEL}, taken since none was named); go on with --bundle model.pscr" in (
        refused.stderr
    )


def test_a_broken_model_here_ends_the_command(cli_with_model, tmp_path, images):
    (tmp_path / "model.pscr").mkdir()
    outcome = cli_with_model("score", "--manifest", "images")
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: model.pscr: no bundle.json in it")
    assert not (tmp_path / "scores").exists()


def test_worker_processes_take_the_same_model(cli_with_model, tmp_path, images, shipped):
    for name in ("two", "one"):
        arguments = ("--devices", "cpu,cpu") if name == "two" else ()
        outcome = cli_with_model("score", "--manifest", "images", "--out", name, "--chunk-rows", 2, *arguments)
        assert outcome.returncode == 0, outcome.stderr
    assert scores(tmp_path / "two") == scores(tmp_path / "one")
    assert scores(tmp_path / "two")[0] == pytest.approx(expected_score(shipped, pixels(50, 60)), abs=1e-5)


@pytest.mark.slow
def test_ray_workers_take_the_same_model(cli_with_model, tmp_path, images, shipped):
    outcome = cli_with_model("score", "--manifest", "images", "--runner", "ray", "--ray-address", "local")
    assert outcome.returncode == 0, outcome.stderr
    assert scores(tmp_path / "scores")[0] == pytest.approx(expected_score(shipped, pixels(50, 60)), abs=1e-5)
    run = json.loads((tmp_path / "scores" / "_run.json").read_text())
    assert run["bundle"]["shipped_model"] == DEFAULT_MODEL


def test_explain_and_inspect_take_it_too(cli_with_model, images, shipped):
    for arguments in ((), ("--bundle", DEFAULT_MODEL)):
        explained = cli_with_model("explain", "images/0.png", *arguments)
        assert explained.returncode == 0, explained.stderr
        assert f"score {expected_score(shipped, pixels(50, 60)):.3f}" in explained.stdout
    assert BY_DEFAULT in cli_with_model("explain", "images/0.png").stderr
    inspected = cli_with_model("inspect")
    assert shipped.digest in inspected.stdout
    assert inspected.stderr == f"{BY_DEFAULT}\n"
    assert json.loads(cli_with_model("inspect", DEFAULT_MODEL, "--json").stdout)["digest"] == shipped.digest


@pytest.mark.slow
def test_bench_takes_it_too(cli_with_model, tmp_path, shipped):
    outcome = cli_with_model("bench", "--seconds", "0.05", "--rounds", "1", "--size", "64x48")
    assert outcome.returncode == 0, outcome.stderr
    assert BY_DEFAULT in outcome.stderr
    assert json.loads((tmp_path / "bench.json").read_text())["bundle"]["digest"] == shipped.digest


def test_a_folder_with_the_name_of_a_model_is_taken_and_said(cli_with_model, tmp_path):
    bundle = make_bundle(tmp_path / DEFAULT_MODEL, exemplars=3)
    inspected = cli_with_model("inspect", DEFAULT_MODEL)
    assert bundle.digest in inspected.stdout
    assert inspected.stderr == f"bundle {DEFAULT_MODEL} (the one at this path, not the shipped model of that name)\n"


@pytest.mark.parametrize(
    "command", [["score", "--manifest", "m"], ["explain", "x.png"], ["bench"], ["inspect"]], ids=lambda words: words[0]
)
def test_without_any_model_one_line_says_what_to_do(cli_without_model, command):
    outcome = cli_without_model(*command)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == (
        "error: no model.pscr here, and no model is shipped with this pscr-engine; make a bundle with pscr-engine "
        "export, or name one with --bundle\n"
    )


@pytest.mark.parametrize("command", [["score", "--manifest", "m", "--bundle"], ["inspect"], ["evaluate"]])
def test_a_mistyped_name_hints_at_the_nearest(cli_with_model, command):
    outcome = cli_with_model(*command, "agiqa3k-lite")
    assert (outcome.returncode, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1)
    assert f"(shipped: {DEFAULT_MODEL}; did you mean {DEFAULT_MODEL}?)" in outcome.stderr
