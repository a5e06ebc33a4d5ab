"""Whole trainings of a real ResNet-18 on small images."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pscr_training.train as train_module
import pytest
import torch
from pscr_export.backbones import BACKBONES
from pscr_export.checkpoint import read_checkpoint
from pscr_training.checkpoints import load_model, save_checkpoint
from pscr_training.config import TrainConfig
from pscr_training.data import patches
from pscr_training.data.open import Source
from pscr_training.method import Model
from pscr_training.train import train

from pscr_engine.errors import CheckpointError, DatasetError, OutputError, PscrError, UsageError

from .made import labelled_table

pytestmark = pytest.mark.medium

SMALL = {"weights": "none", "patch_size": 32, "epochs": 3, "batch_size": 4, "split": "column"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return Source(str(labelled_table(tmp_path_factory.mktemp("labelled"))), split_column="part")


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    return out, train(TrainConfig(source, out=out, **SMALL))


def weights(path):
    content = load_model(path)[2]
    return {f"{part}.{key}": value for part in ("backbone", "regressor") for key, value in content[part].items()}


def same(a, b):
    return all(torch.equal(value, b[key]) for key, value in a.items())


def test_what_a_training_leaves(trained):
    out, result = trained
    assert sorted(os.listdir(out)) == ["best.pt", "last.pt", "log.csv"]
    rows = list(csv.DictReader((out / "log.csv").read_text("utf-8").splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["loss"]) for row in rows] == [entry["loss"] for entry in result.history]
    checkpoint = read_checkpoint(out / "best.pt")
    best = max(result.history, key=lambda entry: entry["val_srcc"])
    assert (checkpoint.backbone.name, checkpoint.epoch) == ("resnet18", best["epoch"])
    assert checkpoint.rho_best == pytest.approx(best["val_srcc"])
    record = checkpoint.record
    assert (record.sampling, record.patch_size, record.method) == ("ops", 32, "contrastive")
    assert len(record.exemplars["names"]) == 15
    assert record.label_range == pytest.approx((min(record.label_range), max(record.label_range)))


def test_the_same_again_is_the_same(source, trained, tmp_path):
    again = train(TrainConfig(source, out=tmp_path / "again", **SMALL, workers=2))
    assert [entry["loss"] for entry in again.history] == [entry["loss"] for entry in trained[1].history]
    assert same(weights(again.last), weights(trained[1].last))


def test_more_epochs_go_on(source, trained, tmp_path):
    out = tmp_path / "run"
    train(TrainConfig(source, out=out, **{**SMALL, "epochs": 1}))
    result = train(TrainConfig(source, out=out, **SMALL))
    assert same(weights(result.last), weights(trained[1].last))
    assert same(weights(result.best), weights(trained[1].best))


def command(source, out, *options):
    return [
        sys.executable, "-m", "pscr_engine", "train", "--dataset", source.dataset, "--split-column", "part",
        "--out", str(out), "--weights", "none", "--patch-size", "32", "--epochs", "3", "--batch-size", "4", *options,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("files", [["last.pt"], ["last.pt", "best.pt"]])
def test_a_killed_training_goes_on_to_the_same_weights(source, trained, tmp_path, files):
    out = tmp_path / "run"
    process = subprocess.Popen(command(source, out), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not all((out / file).exists() for file in files):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = subprocess.run(command(source, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr
    assert "next:" in done.stdout
    assert same(weights(out / "last.pt"), weights(trained[1].last))
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] in (
        [],
        [f".last.pt.partial-{process.pid}"],
    )
    refused = subprocess.run(command(source, out, "--seed", "2"), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert (
        "was trained with seed 1, now it is 2; choose another --out, or start afresh with --overwrite" in refused.stderr
    )


def test_gradients_are_added_up(source, tmp_path):
    """Count the updates, which are fewer where gradients are added up."""
    result = train(TrainConfig(source, out=tmp_path / "a", **{**SMALL, "epochs": 1}, accumulate=2))
    state = load_model(result.last)[2]["optimizer"]["state"]
    assert {int(entry["step"]) for entry in state.values()} == {2}


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": "rps"},
        {"sampling": "nops"},
        {"sampling": "none"},
        {"method": "no-reference"},
        {"amp": True},
        {"pairs": "all", "batch_size": 7},
        {"train_patches": 2, "freeze": ("conv1", "bn1", "layer1"), "freeze_batch_norms": True},
        {"freeze": ("all",), "train_patches": 3, "optimizer": "adamw"},
        {"freeze": ("all",), "method": "no-reference", "pairs": "all"},
        {
            "average": 0.5,
            "schedule": "cosine",
            "head_learning_rate": 1e-3,
            "warmup_epochs": 0.5,
            "freeze_batch_norms": True,
        },
    ],
)
def test_other_ways_to_train(source, tmp_path, options):
    result = train(TrainConfig(source, out=tmp_path / "run", **{**SMALL, "epochs": 1, **options}))
    model, record, _ = load_model(result.last)
    assert (record.sampling, record.method) == (options.get("sampling", "ops"), options.get("method", "contrastive"))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_what_is_frozen_keeps_its_weights_and_statistics(source, tmp_path):
    torch.manual_seed(1)
    before = Model(BACKBONES["resnet18"]).trunk.state_dict()
    options = {"freeze": ("conv1", "bn1", "layer1"), "freeze_batch_norms": True, "average": 0.5}
    result = train(TrainConfig(source, out=tmp_path / "run", **{**SMALL, "epochs": 1, **options}))
    after = load_model(result.last)[0].trunk.state_dict()
    for key, value in before.items():
        frozen = key.startswith(("conv1.", "bn1.", "layer1.")) or "running" in key or key.endswith("batches_tracked")
        assert torch.equal(value, after[key]) == frozen, key


def test_a_frozen_trunk_encodes_each_image_once_and_trains_the_head(source, tmp_path, monkeypatch):
    read = []
    original = patches.read_pixels

    def read_pixels(item):
        read.append(item.name)
        return original(item)

    monkeypatch.setattr(patches, "read_pixels", read_pixels)
    options = {"freeze": ("all",), "pairs": "all", "train_patches": 2}
    result = train(TrainConfig(source, out=tmp_path / "run", **{**SMALL, **options}))
    trained_on = load_model(result.last)[1].exemplars["names"]
    # Once as a training image, and once as an exemplar of the validation.
    assert all(read.count(name) == 2 for name in trained_on)
    losses = [entry["loss"] for entry in result.history]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("average", [0.0, 0.6])
def test_a_schedule_and_an_average_go_on_to_the_same_weights(source, tmp_path, average, monkeypatch):
    options = {**SMALL, "schedule": "cosine", "average": average, "pairs": "all", "train_patches": 4}
    whole = train(TrainConfig(source, out=tmp_path / "whole", **options))
    finish, done = train_module._Run.finish, []

    def stop_after_one(self, *arguments):
        finish(self, *arguments)
        done.append(1)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_module._Run, "finish", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        train(TrainConfig(source, out=tmp_path / "cut", **options))
    cut = train(TrainConfig(source, out=tmp_path / "cut", **options))
    assert len(done) == 3
    assert same(weights(cut.last), weights(whole.last))
    if average:
        trained = load_model(whole.last)[2]["pscr_engine_trained"]["regressor"]["fc1.weight"]
        assert not torch.equal(trained, weights(whole.last)["regressor.fc1.weight"])


def test_training_steps_may_take_patches_by_another_rule(source, tmp_path, monkeypatch):
    taken = []
    original = patches.patches_for_training

    def noting(pixels, sampling, dice, count):
        taken.append((sampling.name, count))
        return original(pixels, sampling, dice, count)

    monkeypatch.setattr(patches, "patches_for_training", noting)
    options = {**SMALL, "epochs": 1, "train_sampling": "rps", "train_patches": 2}
    result = train(TrainConfig(source, out=tmp_path / "run", **options))
    assert set(taken) == {("rps", 2)}
    record = load_model(result.last)[1]
    assert (record.sampling, record.settings["train_sampling"]) == ("ops", "rps")
    with pytest.raises(OutputError, match="was trained with train_sampling rps, now it is unset"):
        train(TrainConfig(source, out=tmp_path / "run", **{**options, "train_sampling": None}))
    with pytest.raises(UsageError, match='train_sampling: with freeze="all" each image is encoded once'):
        train(TrainConfig(source, out=tmp_path / "other", **options, freeze=("all",)))


def test_more_patches_than_there_are(source, tmp_path):
    with pytest.raises(UsageError, match="train_patches 5: nops has only 4 patches"):
        train(TrainConfig(source, out=tmp_path / "run", **SMALL, sampling="nops", train_patches=5))
    with pytest.raises(UsageError, match="freeze layer7: the trunk has no such module"):
        train(TrainConfig(source, out=tmp_path / "run", **SMALL, freeze=("layer7",)))
    assert not (tmp_path / "run").exists()


def test_weights_from_a_file(source, tmp_path):
    torch.manual_seed(9)
    state = BACKBONES["resnet18"].build().state_dict()
    torch.save({**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "w.pth")
    config = TrainConfig(
        source, out=tmp_path / "run", **{**SMALL, "epochs": 1, "weights": str(tmp_path / "w.pth")}, learning_rate=1e-12
    )
    trunk = load_model(train(config).last)[0].trunk.state_dict()
    assert torch.allclose(trunk["conv1.weight"], state["conv1.weight"], atol=1e-6)
    for content, message in (
        ({"conv1.weight": torch.zeros(3)}, "lacks bn1.weight"),
        ({**state, "conv1.weight": torch.zeros(3)}, "has conv1.weight in another shape"),
        ([1], "holds no dictionary of tensors"),
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=message):
            train(TrainConfig(source, out=tmp_path / "other", **{**SMALL, "weights": str(tmp_path / "w.pth")}))
    assert not (tmp_path / "other").exists()
    with pytest.raises(CheckpointError, match=message):  # an earlier training is not given up for one that can't start
        train(dataclasses.replace(config, overwrite=True))
    assert load_model(tmp_path / "run" / "last.pt")


def test_what_is_wrong_is_said_before_training(source, tmp_path):
    with pytest.raises(UsageError, match="patch_size 8: must be from 32 to 1024"):
        TrainConfig(source, patch_size=8)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="choose another out"):
            train(TrainConfig(source, out=tmp_path / "out", **SMALL, overwrite=overwrite))
    assert (tmp_path / "out" / "mine").exists()
    (tmp_path / "t.csv").write_text("path,mos\n" + "".join(f"{index}.png,{index}\n" for index in range(20)))
    with pytest.raises(DatasetError, match="20 of 20 images are missing"):
        train(TrainConfig(Source(str(tmp_path / "t.csv")), out=tmp_path / "new", **{**SMALL, "split": "random"}))
    assert not (tmp_path / "new").exists()


def test_a_loss_that_is_no_number_ends_it(source, tmp_path):
    with pytest.raises(PscrError, match=r"the loss is (nan|inf) in epoch \d: use a smaller learning_rate"):
        config = TrainConfig(source, out=tmp_path / "run", **{**SMALL, "epochs": 5})
        object.__setattr__(config, "learning_rate", 1e30)  # none that is allowed is sure to diverge
        train(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_the_authors_networks_find_all_their_keys(trained, tmp_path, name, golden):
    """Compare keys and shapes with the reference's descriptions, since the authors' code loads strictly."""
    import json

    from tests.conftest import REFERENCE

    _, record, content = load_model(trained[1].last)
    model = Model(BACKBONES[name])
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict({**optimizer.state_dict(), "param_groups": optimizer.state_dict()["param_groups"]})
    save_checkpoint(tmp_path / "c.pt", model, optimizer, 0, record)
    stored = torch.load(tmp_path / "c.pt", weights_only=False)
    assert list(stored)[:5] == ["epoch", "backbone", "regressor", "optimizer", "rho_best"]
    spec = json.loads((REFERENCE / "specs" / f"{name}.json").read_text())["tensors"]
    for part in ("backbone", "regressor"):
        wanted = {entry["key"]: tuple(entry["shape"]) for entry in spec[part]}
        found = {key: tuple(value.shape) for key, value in stored[part].items()}
        buffers = {
            key for key in found.keys() ^ wanted.keys() if key.endswith(("relative_position_index", "attn_mask"))
        }
        assert {key: shape for key, shape in found.items() if key not in buffers} == {
            key: shape for key, shape in wanted.items() if key not in buffers
        }
    assert (tmp_path / "c.pt").stat().st_size < 2e9
    assert content["epoch"] == 2
