"""From a trained checkpoint to an evaluated bundle, without a flag."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.evaluate import EvaluateConfig, evaluate
from pscr_training.train import train

from pscr_engine.errors import CheckpointError, DatasetError, UsageError
from pscr_engine.models import DEFAULT_MODEL

from ..helpers.shipped import ship
from .made import labelled_table

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    table = labelled_table(folder / "images", count=60)
    source = Source(str(table), split_column="part")
    result = train(
        TrainConfig(
            source, out=folder / "run", split="column", weights="none", patch_size=32, epochs=4, batch_size=4,
            learning_rate=1e-3,
        )
    )  # fmt: skip
    return result.last, source


@pytest.mark.slow
def test_a_checkpoint_exports_without_flags_and_its_bundle_scores_the_same(trained, cli, tmp_path):
    last, source = trained
    exported = cli("export", "--ckpt", last)
    assert exported.returncode == 0, exported.stderr
    assert "36 exemplars" in exported.stdout
    by_checkpoint = evaluate(EvaluateConfig(last))
    by_bundle = evaluate(EvaluateConfig(tmp_path / "model.pscr", source, "column", device="cpu"))
    assert by_checkpoint.scores == pytest.approx(by_bundle.scores, abs=1e-4)
    assert by_checkpoint.metrics.images == by_bundle.metrics.images == 12
    assert (by_checkpoint.exemplars, by_bundle.exemplars) == (36, 36)
    few = cli("export", "--ckpt", last, "--num-exemplars", 5, "--select", "random", "--seed", 3, "--out", "few.pscr")
    assert few.returncode == 0, few.stderr
    chosen = {"num_exemplars": 5, "select": "random", "seed": 3, "device": "cpu"}
    configs = (EvaluateConfig(last, **chosen), EvaluateConfig(tmp_path / "few.pscr", source, "column", **chosen))
    scores = [evaluate(config).scores for config in configs]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_it_has_learnt_something(trained):
    found = evaluate(EvaluateConfig(trained[0], part="train"))
    assert found.metrics.srcc.value > 0.5
    assert found.metrics.srcc.low <= found.metrics.srcc.value <= found.metrics.srcc.high
    assert found.leakage is None


def test_the_command(trained, cli, tmp_path):
    outcome = cli("evaluate", trained[0], "--json", "e.json", "--plot", "e.svg")
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert "36 exemplars" in lines[0]
    assert [line.split("  ")[1] for line in lines if "95%" in line] == [
        "SRCC", "KRCC", "PLCC", "PLCC, logistic fit", "RMSE", "RMSE, logistic fit",
    ]  # fmt: skip
    found = json.loads((tmp_path / "e.json").read_text())
    assert len(found["images"]) == 12
    shown = next(line for line in lines if line.startswith("  SRCC")).split()[1]
    assert float(shown) == pytest.approx(found["metrics"]["srcc"][0], abs=1e-4)
    assert ElementTree.parse(tmp_path / "e.svg").getroot().tag.endswith("svg")
    png = cli("evaluate", trained[0], "--plot", "e.png", "--num-exemplars", 3)
    assert png.returncode == 0, png.stderr
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
    assert cli("evaluate", trained[0], "--plot", "e.gif").returncode == 2


def test_scores_depend_on_the_exemplars_as_the_formula_says(trained):
    all_of_them = evaluate(EvaluateConfig(trained[0]))
    some = [evaluate(EvaluateConfig(trained[0], num_exemplars=36, select="random", seed=seed)) for seed in (1, 2)]
    for other in some:
        np.testing.assert_allclose(other.scores, all_of_them.scores, atol=1e-4)
    one = evaluate(EvaluateConfig(trained[0], num_exemplars=1))
    assert not np.allclose(one.scores, all_of_them.scores, atol=1e-3)


def test_the_baseline_is_evaluated_and_not_exported(trained, cli, tmp_path):
    source = trained[1]
    result = train(
        TrainConfig(
            source, out=tmp_path / "nr", split="column", weights="none", patch_size=32, epochs=1, method="no-reference"
        )
    )
    assert evaluate(EvaluateConfig(result.last)).exemplars == 0
    outcome = cli("export", "--ckpt", result.last)
    assert outcome.returncode == 1
    assert "the no-reference baseline compares with no exemplars; it can't be exported" in outcome.stderr


def test_moved_images_are_found_again(trained, cli, tmp_path):
    last, source = trained
    from pathlib import Path

    folder = Path(source.dataset).parent
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.glob("*.png"):
        (moved / file.name).write_bytes(file.read_bytes())
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        with pytest.raises(DatasetError, match="no such file"):
            evaluate(EvaluateConfig(last))
        outcome = cli("export", "--ckpt", last)
        assert outcome.returncode == 1
        assert "36 of 36 training images can't be read" in outcome.stderr
        assert "--exemplar-root" in outcome.stderr
        found = cli("export", "--ckpt", last, "--exemplar-root", moved, "--num-exemplars", 4)
        assert found.returncode == 0, found.stderr
    finally:
        hidden.rename(folder)


def test_settings_that_do_not_go_together(trained, tmp_path, tiny):
    with pytest.raises(UsageError, match="a bundle does not say what it was trained on"):
        evaluate(EvaluateConfig(tiny.path))
    with pytest.raises(UsageError, match="part 'exam'"):
        evaluate(EvaluateConfig(trained[0], part="exam"))


def test_a_shipped_model_is_evaluated_by_its_name(models_folder, tmp_path, monkeypatch):
    bundle = ship(models_folder)
    monkeypatch.chdir(tmp_path)
    source = Source(str(labelled_table(tmp_path / "images", count=12)))
    by_name = evaluate(EvaluateConfig(Path(DEFAULT_MODEL), source, device="cpu"))
    by_path = evaluate(EvaluateConfig(bundle.path, source, device="cpu"))
    assert by_name.name == DEFAULT_MODEL
    assert list(by_name.scores) == list(by_path.scores)
    with pytest.raises(CheckpointError, match="no such file"):
        evaluate(EvaluateConfig(Path("x.pt"), source))
