"""`evaluate` with several models: the same images, paired intervals, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pscr_training.comparing import compare
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.evaluate import EvaluateConfig, evaluate
from pscr_training.metrics import differences, measure
from pscr_training.train import train
from scipy.stats import spearmanr

from pscr_engine.errors import DatasetError, UsageError

from ..helpers.tiny import make_bundle
from .made import labelled_table

pytestmark = pytest.mark.medium

SMALL = {"weights": "none", "patch_size": 32, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train two models on one split of a table, and one on another split."""
    folder = tmp_path_factory.mktemp("compared")
    source = Source(str(labelled_table(folder / "images", count=50)), split_column="part")
    for name, settings in (
        ("a", {"split": "column"}),
        ("b", {"split": "column", "method": "no-reference", "seed": 2}),
        ("c", {"split": "random", "seed": 3}),
    ):
        train(TrainConfig(source, out=folder / name, **SMALL, **settings))
    return folder, source


def test_the_bootstrap_is_paired():
    dice = np.random.default_rng(0)
    labels = dice.normal(size=200)
    noise = dice.normal(size=200)
    one, other = labels + noise, labels + 0.9 * noise + 0.05 * dice.normal(size=200)
    found = differences(one, other, labels, seed=4)
    drawn = np.random.default_rng(4)
    values = []
    for _ in range(1000):
        at = drawn.integers(200, size=200)
        values.append(spearmanr(other[at], labels[at]).statistic - spearmanr(one[at], labels[at]).statistic)
    assert found["srcc"][1:] == pytest.approx(np.percentile(values, [2.5, 97.5]))
    alone = measure(one, labels, 4), measure(other, labels, 4)
    assert list(found) == ["srcc", "krcc", "plcc", "rmse"]
    for name, (value, low, high) in found.items():
        mine, theirs = (getattr(metrics, name) for metrics in alone)
        assert value == pytest.approx(theirs.value - mine.value)
        assert low <= value <= high
        assert high - low < 0.5 * (mine.high - mine.low)  # what both find hard cancels out
    assert low < high < 0  # the errors are smaller, and surely so
    assert all(estimate == (0, 0, 0) for estimate in differences(one, one, labels).values())


def test_the_command_compares_checkpoints_and_a_bundle(made, cli, tmp_path):
    folder, source = made
    make_bundle(tmp_path / "tiny.pscr")
    models = [folder / "a" / "last.pt", folder / "b" / "last.pt", "tiny.pscr"]
    outcome = cli("evaluate", *models, "--json", "c.json", "--device", "cpu")
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[0] == f"{source.dataset}, mos, test: 10 images, the same for all"
    assert lines[1] == f"  A  {models[0]}, fp32, 30 exemplars; 90% have a prompt that it was trained on"
    assert lines[2].startswith(f"  B  {models[1]}, fp32, no exemplars")
    assert lines[3] == "  C  tiny.pscr, fp32, 5 exemplars"
    assert [line.split()[0] for line in lines if line[:1].isalpha()] == ["SRCC", "KRCC", "PLCC", "RMSE"] * 2
    found = json.loads((tmp_path / "c.json").read_text())
    assert [each["model"] for each in found["models"]] == [str(model) for model in models]
    assert [(each["model"], each["minus"]) for each in found["differences"]] == [
        (str(models[1]), str(models[0])),
        ("tiny.pscr", str(models[0])),
    ]
    alone = evaluate(EvaluateConfig(models[1]))
    assert [image["scores"][1] for image in found["images"]] == pytest.approx(alone.scores.tolist(), abs=1e-5)
    for name, values in json.loads(json.dumps(alone.metrics.as_json())).items():
        # Another process may add in another order, and fits of few images turn rounding into more.
        assert found["models"][1]["metrics"][name] == pytest.approx(values, abs=1e-4), name
    srcc = [each["metrics"]["srcc"][0] for each in found["models"]]
    assert found["differences"][1]["metrics"]["srcc"][0] == pytest.approx(srcc[2] - srcc[0])
    row = next(line for line in lines if line.startswith("SRCC")).split()
    assert [float(value) for value in row[1:4]] == pytest.approx([srcc[0], srcc[1], srcc[1] - srcc[0]], abs=1e-4)


def test_other_splits_are_refused_before_anything_is_scored(made, cli):
    folder, _ = made
    outcome = cli("evaluate", folder / "a" / "last.pt", folder / "c" / "last.pt")
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert outcome.stderr.count("\n") == 1
    assert "would be evaluated on different images (10 and 10, " in outcome.stderr
    assert "in common); name the images for all with --dataset" in outcome.stderr


def test_images_that_a_model_was_trained_on_are_refused(made, tmp_path, caplog):
    folder, source = made
    models = [folder / "a" / "last.pt", folder / "c" / "last.pt"]
    named = [EvaluateConfig(model, source, "column") for model in models]
    with pytest.raises(
        DatasetError, match=r"c/last.pt: \d of the 10 images were trained on, or are its exemplars; comp"
    ):
        compare(named)
    # Copies under other names are found, too.
    copies = tmp_path / "copies"
    shutil.copytree(folder / "images", copies)
    for file in sorted(copies.glob("*.png")):
        file.rename(file.with_name(f"copy-{file.name}"))
    table = (copies / "labels.csv").read_text().splitlines()
    (copies / "labels.csv").write_text("\n".join([table[0], *(f"copy-{line}" for line in table[1:])]) + "\n")
    copied = Source(str(copies / "labels.csv"), split_column="part")
    with pytest.raises(DatasetError, match=r"c/last.pt: \d of the 10 images were trained on"):
        compare([EvaluateConfig(model, copied, "column") for model in models])
    with caplog.at_level("WARNING", "pscr_training"):
        found = compare([EvaluateConfig(model, source, "column", part="all") for model in models])
    assert found.evaluations[0].metrics.images == 50
    assert sum("were trained on" in record.getMessage() for record in caplog.records) == 2


def test_the_same_images_in_another_order_are_the_same_images(made, tmp_path):
    folder, source = made
    moved = tmp_path / "b"
    moved.mkdir()
    first = evaluate(EvaluateConfig(folder / "a" / "last.pt"))
    table = Path(source.dataset).read_text().splitlines()
    turned = folder / "images" / "turned.csv"
    turned.write_text("\n".join([table[0], *reversed(table[1:])]) + "\n")
    train(TrainConfig(Source(str(turned), split_column="part"), out=moved, split="column", **SMALL))
    found = compare([EvaluateConfig(folder / "a" / "last.pt"), EvaluateConfig(moved / "last.pt")])
    assert [item.file for item in found.evaluations[1].items] != [item.file for item in first.items[::-1]]
    assert [item.file.name for item in found.evaluations[1].items] == [item.file.name for item in first.items]
    alone = evaluate(EvaluateConfig(moved / "last.pt"))
    assert found.evaluations[1].scores == pytest.approx(alone.scores[::-1], abs=1e-5)
    turned.write_text(turned.read_text().replace("\n3.png,", "\n3.png,1"))
    with pytest.raises(DatasetError, match="would be compared with different labels of 1 images"):
        compare([EvaluateConfig(folder / "a" / "last.pt"), EvaluateConfig(moved / "last.pt")])


def test_what_does_not_go_together(made, cli, tmp_path):
    folder, _ = made
    with pytest.raises(UsageError, match="name at least two models"):
        compare([EvaluateConfig(folder / "a" / "last.pt")])
    plotted = cli("evaluate", "a.pt", "b.pt", "--plot", "p.svg")
    assert (plotted.returncode, plotted.stderr) == (
        2,
        "error: --plot p.svg: shows one model; leave it out, or name one model\n",
    )
    make_bundle(tmp_path / "x.pscr")
    bundles = cli("evaluate", "x.pscr", "x.pscr")
    assert bundles.returncode == 2
    assert "a bundle does not say what it was trained on: name labelled images with --dataset" in bundles.stderr
