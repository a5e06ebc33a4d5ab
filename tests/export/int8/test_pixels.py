import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pscr_export.int8.pixels import PixelNetwork
from pscr_export.network import MEAN, STD, ScoringNetwork
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from ..small import small_checkpoint


def trunk_with(kernel: int, stride: int, padding: int, bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel, stride, padding, bias=bias),
        nn.ReLU(),
        nn.Conv2d(8, 5, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(7, 2, 3), (3, 1, 1), (3, 2, 0), (5, 1, 2), (3, 2, 1), (4, 4, 0), (1, 1, 0)]),
    size=st.integers(16, 33),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_features_on_pixels_are_those_on_normalised_values(shape, size, bias, seed):
    torch.manual_seed(seed)
    kernel, stride, padding = shape
    trunk = trunk_with(kernel, stride, padding, bias)
    checkpoint = small_checkpoint(5, trunk)
    patches = torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8)
    network = PixelNetwork(copy.deepcopy(trunk), checkpoint, patches=2).eval()
    # The border is the mean colour in whole levels, in place of its exact value.
    colour = torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8)
    framed = colour.expand(4, size + 2 * padding, size + 2 * padding, 3).clone()
    framed[:, padding : padding + size, padding : padding + size] = patches
    without_padding = copy.deepcopy(trunk)
    without_padding[0].padding = (0, 0)
    normalised = (framed.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        expected = without_padding.double()(normalised.permute(0, 3, 1, 2)).reshape(2, 2, 5).mean(1)
        assert torch.allclose(network.features(patches).double(), expected, atol=1e-4)
        exact = ScoringNetwork(trunk.float(), checkpoint, patches=2).eval().features(patches)
        if padding == 0:
            assert torch.allclose(network.features(patches), exact, atol=1e-4)


def test_the_trunk_in_its_first_convolution_only_is_changed():
    trunk = trunk_with(7, 2, 3, bias=True)
    before = copy.deepcopy(trunk[2].state_dict())
    network = PixelNetwork(trunk, small_checkpoint(5, trunk), patches=1)
    assert isinstance(network.trunk[0], nn.Identity)
    assert all(torch.equal(before[name], value) for name, value in network.trunk[2].state_dict().items())


def test_a_stride_of_a_whole_group_stays_in_place():
    trunk = trunk_with(4, 4, 0, bias=True)
    network = PixelNetwork(trunk, small_checkpoint(5, trunk), patches=1)
    assert network.first is None
    assert isinstance(network.trunk[0], nn.Conv2d)


@pytest.mark.parametrize("size", [224, 299, 48])
def test_sizes_of_the_outputs(size):
    for kernel, stride, padding in ((7, 2, 3), (3, 1, 1), (3, 2, 0)):
        trunk = nn.Sequential(nn.Conv2d(3, 2, kernel, stride, padding), nn.ReLU())
        network = PixelNetwork(copy.deepcopy(trunk), small_checkpoint(2, trunk), patches=1)
        patches = torch.zeros((1, size, size, 3), dtype=torch.uint8)
        assert network.first is not None
        assert network.first(patches).shape == trunk(torch.zeros(1, 3, size, size)).shape


@pytest.mark.parametrize("size", [32, 33, 224])
def test_padding_as_tensorflow_has_it(size):
    torch.manual_seed(size)
    trunk = nn.Sequential(Conv2dSame(3, 8, 3, 2), nn.ReLU6(), nn.Conv2d(8, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = PixelNetwork(copy.deepcopy(trunk), small_checkpoint(5, trunk), patches=1)
    patches = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    # One more row and column of the mean colour where TensorFlow pads: below and on the right first.
    before, after = (0, 1) if size % 2 == 0 else (1, 1)
    colour = torch.tensor([round(255 * mean) for mean in MEAN], dtype=torch.uint8)
    framed = colour.expand(2, before + size + after, before + size + after, 3).clone()
    framed[:, before : before + size, before : before + size] = patches
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2), *trunk[1:])
    plain.load_state_dict(trunk.state_dict())
    normalised = (framed.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        expected = plain(normalised.permute(0, 3, 1, 2))
        assert network.first is not None
        assert torch.allclose(network.features(patches), expected, atol=1e-4)


def test_another_activation_stays_behind_its_convolution():
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = PixelNetwork(copy.deepcopy(trunk), small_checkpoint(8, trunk), patches=1)
    patches = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert network.first is None
        exact = ScoringNetwork(trunk, small_checkpoint(8, trunk), patches=1).features(patches)
        assert torch.allclose(network.features(patches), exact, atol=1e-4)
