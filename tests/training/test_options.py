"""What is wrong with a command is said in one line before any work: before data are read or weights downloaded."""

import math

import pscr_training.train as train_module
import pytest
import torch
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.device import choose_device
from pscr_training.evaluate import EvaluateConfig
from pscr_training.scatter import check_plot
from pscr_training.train import train

from pscr_engine.errors import DatasetError, MissingDependencyError, UsageError

from .made import labelled_table

NOWHERE = Source("nowhere.csv")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate -1: must be above 0 and at most 1"),
        ({"learning_rate": math.nan}, "learning_rate nan: must be above 0 and at most 1"),
        ({"learning_rate": 0.0}, "learning_rate 0: must be above 0"),
        ({"head_learning_rate": -1.0}, "head_learning_rate -1: must be above 0"),
        ({"weight_decay": -0.1}, "weight_decay -0.1: must be from 0 to 1"),
        ({"patch_size": 5000}, "patch_size 5000: must be from 32 to 1024"),
        ({"patch_size": -1}, "patch_size -1: must be from 32 to 1024"),
        ({"epochs": 0}, "epochs 0: must be at least 1"),
        ({"batch_size": 0}, "batch_size 0: must be from 1 to 4096"),
        ({"batch_size": 10**9}, "batch_size 1000000000: must be from 1 to 4096"),
        ({"accumulate": 0}, "accumulate 0: must be at least 1"),
        ({"train_patches": 0}, "train_patches 0: must be at least 1"),
        ({"val_share": 1.0}, "val_share 1: must be above 0 and below 1"),
        ({"average": 1.0}, "average 1: must be from 0 to below 1"),
        ({"warmup_epochs": 100.0}, "warmup_epochs 100: must be from 0 to below epochs, 100"),
        ({"workers": -1}, "workers -1: must be from 0 to 256"),
        ({"cache_mb": -1}, "cache_mb -1: must be at least 0"),
        ({"seed": -1}, "seed -1: must be from 0 to 4294967294"),
    ],
)
def test_numbers_of_train(settings, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        TrainConfig(NOWHERE, **settings)


def test_numbers_of_the_data_and_of_evaluate(tmp_path):
    with pytest.raises(UsageError, match=r"^images 0: must be at least 1$"):
        Source("synthetic", images=0)
    for settings, message in (
        ({"num_exemplars": 0}, "num_exemplars 0: must be at least 1, or None"),
        ({"workers": -1}, "workers -1: must be from 0 to 256"),
        ({"seed": -1}, "seed -1: must be from 0 to"),
    ):
        with pytest.raises(UsageError, match=message):
            EvaluateConfig(tmp_path / "nothing.pt", **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "nowhere.csv", "--learning-rate", "-1"], "--learning-rate -1: must be above 0"),
        (["train", "--dataset", "nowhere.csv", "--device", "gpu"], "--device gpu: is no device; use auto, cpu"),
        (["evaluate", "nothing.pt", "--plot", "p.jpg"], "--plot p.jpg: name a file that ends in .svg or .png"),
        (["evaluate", "nothing.pt", "--plot", "no/p.svg"], "--plot no/p.svg: there is no folder no"),
        (["evaluate", "nothing.pt", "--json", "."], "--json .: is a folder"),
        (["export", "--ckpt", "nothing.pt", "--opset", "99"], "--opset 99: must be from 18 to 23"),
    ],
)
def test_commands_end_with_one_line_and_exit_code_2(cli, tmp_path, arguments, message):
    outcome = cli(*arguments)
    assert outcome.returncode == 2, outcome.stderr
    assert outcome.stderr.startswith(f"error: {message}")
    assert outcome.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_download(monkeypatch):
    def fail(*arguments):
        pytest.fail("weights are loaded")

    monkeypatch.setattr(train_module, "load_weights", fail)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "device cuda: PyTorch can use no GPU here"),
        ({"device": "cuda:7"}, "device cuda:7: PyTorch can use no GPU here"),
        ({"device": "meta"}, "device meta: computes nothing"),
        ({"device": "quantum"}, "device quantum: is no device"),
        ({"sampling": "nops", "patch_size": 300}, "sampling nops: two patches of 300 pixels"),
        ({"train_patches": 10}, "train_patches 10: ops has only 9 patches"),
        (
            {"backbone": "timm:vit_tiny_patch16_224", "patch_size": 100},
            r"patch_size 100: timm:vit_tiny_patch16_224 can't take such patches \(.+\); leave it out for 224",
        ),
    ],
)
def test_settings_are_checked_before_the_data_are_opened(settings, message, no_download, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message) as raised:
        train(TrainConfig(NOWHERE, out=tmp_path / "out", **settings))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_modules_to_freeze_are_checked_before_weights_are_loaded(no_download, tmp_path):
    source = Source(str(labelled_table(tmp_path / "images")), split_column="part")
    with pytest.raises(UsageError, match="freeze layer7"):
        train(TrainConfig(source, out=tmp_path / "out", split="column", freeze=("layer7",)))


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (10, "the split random leaves 1 image to validate on, and 2 are the least; use a larger val_share"),
        (6, "the split random leaves 0 images to validate on"),
    ],
)
def test_too_few_images_are_said_before_training(no_download, tmp_path, count, message):
    source = Source(str(labelled_table(tmp_path / "images", count=count)))
    with pytest.raises(DatasetError, match=message):
        train(TrainConfig(source, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_devices_that_can_be_used():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")


def test_a_device_that_does_not_work_is_refused_with_its_reason(monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError("CUDA error: invalid device ordinal\nmore lines")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(UsageError, match=r"^device cuda:9: PyTorch can't use it here \(CUDA error: invalid device"):
        choose_device("cuda:9")


def test_a_plot_needs_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"cpu,export,train"):
        check_plot(tmp_path / "p.svg")
