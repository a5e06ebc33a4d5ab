import collections
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pscr_export.backbones import BACKBONES
from pscr_export.checkpoint import read_checkpoint

from pscr_engine.errors import CheckpointError

SPEC = BACKBONES["resnet18"]


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(0)
    C = SPEC.feature_size
    return {
        "epoch": 3,
        "backbone": SPEC.build().state_dict(),
        "regressor": {
            "fc1.weight": torch.randn(C, 2 * C),
            "fc1.bias": torch.randn(C),
            "fc2.weight": torch.randn(1, C),
            "fc2.bias": torch.randn(1),
        },
        "optimizer": {"state": {}, "param_groups": []},
        "rho_best": np.float64(0.87),
    }


def changed(content, part, **tensors):
    state = collections.OrderedDict(content[part])
    for key, value in tensors.items():
        key = key.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return {**content, part: state}


def test_everything_is_read(content, save):
    checkpoint = read_checkpoint(save(content))
    assert checkpoint.backbone.name == "resnet18"
    assert (checkpoint.epoch, checkpoint.rho_best) == (3, 0.87)
    assert torch.equal(checkpoint.fc1_weight, content["regressor"]["fc1.weight"])
    assert torch.equal(checkpoint.trunk.state_dict()["conv1.weight"], content["backbone"]["conv1.weight"])
    assert not checkpoint.trunk.training


def test_old_file_format_and_data_parallel(content, save):
    wrapped = {
        **content,
        **{
            part: {f"module.{key}": value for key, value in content[part].items()} for part in ("backbone", "regressor")
        },
    }
    checkpoint = read_checkpoint(save(wrapped, _use_new_zipfile_serialization=False))
    assert torch.equal(checkpoint.fc2_bias, content["regressor"]["fc2.bias"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_orig_mod._orig_mod."])
def test_wrapped_networks_are_recognised(content, save, prefix):
    wrapped = {
        **content,
        "backbone": {f"{prefix}{key}": value for key, value in content["backbone"].items()},
        "regressor": {f"module.{key}": value for key, value in content["regressor"].items()},
    }
    checkpoint = read_checkpoint(save(wrapped))
    assert checkpoint.backbone.name == "resnet18"
    assert torch.equal(checkpoint.trunk.state_dict()["conv1.weight"], content["backbone"]["conv1.weight"])


def test_numbers_of_any_numpy_type_are_facts(content, save):
    facts = {"epoch": np.int64(7), "rho_best": np.float16(0.5), "amp": np.bool_(True), "seed": np.uint8(1)}
    checkpoint = read_checkpoint(save({**content, **facts}))
    assert (checkpoint.epoch, checkpoint.rho_best) == (7, 0.5)


def test_facts_about_training_are_optional(content, save):
    for facts in ({}, {"epoch": "last", "rho_best": float("nan")}):
        bare = {"backbone": content["backbone"], "regressor": content["regressor"], **facts}
        checkpoint = read_checkpoint(save(bare))
        assert checkpoint.epoch is None
        assert checkpoint.rho_best is None


def test_half_precision_weights_become_float32(content, save):
    half = {
        **content,
        "backbone": {
            key: value.half() if value.is_floating_point() else value for key, value in content["backbone"].items()
        },
    }
    assert read_checkpoint(save(half)).trunk.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [1, 2], "holds a list, not a dictionary"),
        (lambda c: {"model": c["backbone"]}, "no 'backbone' and no 'regressor'"),
        (lambda c: {**c, "regressor": torch.zeros(1)}, "'regressor' is not a state dict"),
        (lambda c: {**c, "backbone": {"a": 1}}, "'a' is a int"),
        (
            lambda c: {**c, "backbone": {"a": torch.zeros(1)}},
            r"unknown backbone \(first keys: a\); known: resnet18",
        ),
        (lambda c: changed(c, "backbone", layer4__1__bn2__weight=None), "lacks 1 key: layer4.1.bn2.weight"),
        (
            lambda c: changed(c, "backbone", layer1__2__conv1__weight=torch.zeros(1)),
            "another network than resnet18",
        ),
        (
            lambda c: changed(c, "backbone", conv1__weight=torch.zeros(64, 3, 3, 3)),
            r"\[64, 3, 3, 3\], not \[64, 3, 7, 7\]",
        ),
        (
            lambda c: changed(c, "backbone", bn1__weight=torch.zeros(64, dtype=torch.int64)),
            "is torch.int64, not torch.float32",
        ),
        (
            lambda c: changed(c, "backbone", bn1__bias=torch.full((64,), torch.nan)),
            "NaN or infinite values in 1 key: bn1.bias",
        ),
        (
            lambda c: changed(c, "regressor", fc1__bias=torch.full((512,), torch.inf)),
            "regressor has NaN or infinite",
        ),
        (lambda c: changed(c, "regressor", fc2__weight=None), "regressor lacks 1 key: fc2.weight"),
        (
            lambda c: changed(c, "regressor", fc1__weight=torch.zeros(512, 512)),
            r"\[512, 512\], not \[512, 1024\]",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(content, save, change, message):
    path = save(change(content))
    with pytest.raises(CheckpointError, match=message) as raised:
        read_checkpoint(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_the_named_backbone_must_be_the_one_that_is_there(content, save):
    with pytest.raises(CheckpointError, match="holds resnet18, not vgg16"):
        read_checkpoint(save(content), "vgg16")
    assert read_checkpoint(save(content), "resnet18").backbone.name == "resnet18"


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_nothing_is_executed(content, save, tmp_path, options):
    path = save({**content, "rho_best": Evil(tmp_path / "owned")}, **options)
    with pytest.raises(CheckpointError, match=r"holds (posix|os)\.mkdir, which is not allowed") as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "owned").exists()


def test_files_that_are_no_checkpoints(tmp_path, content, save):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("hello\n" * 100)
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("a", "b")
    (tmp_path / "cut").write_bytes(save(content).read_bytes()[:-5000])
    for name in ("empty", "text", "zip", "cut", "pickle", "nothing", "."):
        with pytest.raises(CheckpointError) as raised:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_every_backbone_is_recognised_from_its_reference_checkpoint(checkpoint, backbone):
    read = read_checkpoint(checkpoint(backbone))
    assert read.backbone.name == backbone
    assert read.rho_best == pytest.approx(0.8712345678901234)
    if backbone == "vit":
        checkpoint(backbone).unlink()  # more than a gigabyte


@pytest.mark.slow
def test_checkpoints_as_training_saves_them(checkpoint):
    read = read_checkpoint(checkpoint("resnet18", "--data-parallel", "--adam-moments", "--numpy1"))
    assert read.backbone.name == "resnet18"
