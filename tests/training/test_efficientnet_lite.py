"""TensorFlow's EfficientNet-Lite weights in timm's architecture."""

import pytest
import torch
from pscr_export.network import MEAN, STD
from pscr_export.timm_backbone import find_backbone
from pscr_training.efficientnet_lite import efficientnet_lite_as_timm, is_efficientnet_lite, with_imagenet_input
from pscr_training.weights import load_weights

from pscr_engine.errors import CheckpointError

LITE0 = "timm:tf_efficientnet_lite0"
BLOCKS = 16


def package_keys():
    """List the key names of efficientnet-lite-pytorch's Lite0, in its order."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def both(convolution, batch_norm):
        return [f"{convolution}.weight", *(f"{batch_norm}.{name}" for name in norm)]

    keys = both("_conv_stem", "_bn0")
    for block in range(BLOCKS):
        at = f"_blocks.{block}."
        if block:
            keys += both(f"{at}_expand_conv", f"{at}_bn0")
        keys += both(f"{at}_depthwise_conv", f"{at}_bn1") + both(f"{at}_project_conv", f"{at}_bn2")
    return [*keys, *both("_conv_head", "_bn1"), "_fc.weight", "_fc.bias"]


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(3)
    trunk = find_backbone(LITE0).build().eval()
    for name, buffer in trunk.named_buffers():
        if name.endswith("mean"):
            buffer.uniform_(-1.5, -0.5)  # so that most values pass the ReLU
        elif name.endswith("var"):
            buffer.uniform_(0.5, 1.5)
    return trunk


@pytest.fixture
def state(trunk):
    values = [*trunk.state_dict().values(), torch.zeros(1000, 1280), torch.zeros(1000)]
    return dict(zip(package_keys(), values, strict=True))


def test_every_key_finds_its_place(trunk, state):
    assert is_efficientnet_lite(state)
    named = efficientnet_lite_as_timm(state, LITE0, "w.pth")
    wanted = trunk.state_dict()
    assert set(named) - set(wanted) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(named[key], value) for key, value in wanted.items())


def test_the_input_convention_is_part_of_the_weights(trunk, state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    other = find_backbone(LITE0).build().eval()
    load_weights(other, find_backbone(LITE0), str(tmp_path / "w.pth"))
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).double()
    as_trained = (pixels - 127) / 128
    mean, std = (torch.tensor(x, dtype=torch.float64).view(1, 3, 1, 1) for x in (MEAN, STD))
    as_given = (pixels / 255 - mean) / std
    with torch.no_grad():
        before = trunk.double().bn1(trunk.conv_stem(as_trained))
        after = other.double().bn1(other.conv_stem(as_given))
    trunk.float()
    assert before.mean() > 0.1
    inside = slice(0, -1)  # the last row and column see the border
    assert torch.allclose(before[..., inside, inside], after[..., inside, inside], atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-5)
    assert set(with_imagenet_input(efficientnet_lite_as_timm(state, LITE0, ""))) >= set(trunk.state_dict())


@pytest.mark.parametrize("backbone", ["timm:efficientnet_lite0", "timm:mobilenetv3_small_100", "resnet18"])
def test_another_trunk_does_not_take_them(state, tmp_path, backbone):
    """Try other trunks: timm's efficientnet_lite0 has the same shapes and computes something else."""
    torch.save(state, tmp_path / "w.pth")
    spec = find_backbone(backbone)
    with pytest.raises(CheckpointError, match='fits backbone="timm:tf_efficientnet_lite0", not'):
        load_weights(spec.build(), spec, str(tmp_path / "w.pth"))


def test_another_size_is_refused(state):
    with pytest.raises(CheckpointError, match=r"_blocks.16._bn1.weight is no part of EfficientNet-Lite0"):
        efficientnet_lite_as_timm({**state, "_blocks.16._bn1.weight": torch.zeros(3)}, LITE0, "w.pth")
