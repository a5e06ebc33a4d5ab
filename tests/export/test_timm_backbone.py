"""Any of timm's architectures as a trunk."""

import pytest
import timm
import torch
from pscr_export import timm_backbone
from pscr_export.checkpoint import read_checkpoint
from pscr_export.timm_backbone import find_backbone
from pscr_training.untrained import write_untrained_checkpoint
from torch import nn

from pscr_engine.errors import CheckpointError


@pytest.mark.parametrize(
    ("name", "C"),
    [("timm:tf_efficientnet_lite0", 1280), ("timm:mobilenetv4_conv_small", 1280), ("timm:convnext_atto", 320)],
)
def test_features_are_pooled(name, C):
    backbone = find_backbone(name)
    assert (backbone.name, backbone.feature_size, backbone.patch_size) == (name, C, 224)
    assert backbone.build().eval()(torch.zeros(2, 3, 64, 64)).shape == (2, C)


def test_a_checkpoint_says_by_name_what_it_is(tmp_path):
    write_untrained_checkpoint(tmp_path / "c.pt", "timm:mobilenetv3_small_050")
    with pytest.raises(CheckpointError, match=r"unknown backbone .* backbone timm:NAME"):
        read_checkpoint(tmp_path / "c.pt")
    checkpoint = read_checkpoint(tmp_path / "c.pt", "timm:mobilenetv3_small_050")
    assert checkpoint.backbone.name == "timm:mobilenetv3_small_050"
    with pytest.raises(CheckpointError, match=r"backbone \(timm:convnext_atto\) lacks"):
        read_checkpoint(tmp_path / "c.pt", "timm:convnext_atto")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:mobilenetv4_conv_smal", "timm .* has no such architecture; nearest: mobilenetv4_conv_small"),
        ("resnet19", "choose from resnet18, .* or timm:NAME"),
        ("timm:vit_base_patch16_siglip_gap_224", None),
    ],
)
@pytest.mark.medium
def test_names(name, message):
    if message is None:
        assert find_backbone(name).feature_size == 768
    else:
        with pytest.raises(CheckpointError, match=message):
            find_backbone(name)


def test_what_is_not_pooled_is_refused(monkeypatch):
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(CheckpointError, match=r"timm:odd: gives \[1, 4, 30, 30\], not one pooled vector per patch"):
        timm_backbone.check_timm_trunk("odd", trunk, 32)
    assert trunk.training


def test_what_cannot_take_the_patches_is_refused():
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(10, 4))
    with pytest.raises(CheckpointError, match="timm:odd: can't take patches of 32 pixels"):
        timm_backbone.check_timm_trunk("odd", trunk, 32)


def test_what_timm_cannot_build_is_refused(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(CheckpointError, match="can't build it without a classifier \\(no such thing\\)"):
        timm_backbone.build_timm_trunk("convnext_atto")
