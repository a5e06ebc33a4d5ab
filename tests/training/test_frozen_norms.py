"""A trunk with folded batch norms is the same function of the same parameters."""

import copy

import pytest
import torch
from pscr_export.timm_backbone import find_backbone
from pscr_training.frozen_norms import FoldedTrunk, keep_batch_norms
from pscr_training.method import Model
from pscr_training.rounding import round_to_half
from torch import nn


def with_statistics(trunk):
    """Give a trunk's batch norms random statistics and weights, so that they do something."""
    torch.manual_seed(7)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return trunk


NAMES = ["resnet18", "timm:tf_efficientnet_lite0", "timm:mobilenetv4_conv_small"]


@pytest.mark.medium
@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_those_of_the_trunk(name):
    trunk = with_statistics(find_backbone(name).build()).double()
    other = copy.deepcopy(trunk)
    keep_batch_norms(trunk)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    plain, quick = trunk(x), FoldedTrunk(other)(x)
    assert torch.allclose(plain, quick, atol=1e-9)
    weight = torch.rand_like(plain)
    (plain * weight).sum().backward()
    (quick * weight).sum().backward()
    for (key, a), b in zip(trunk.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None, key
        assert torch.allclose(a.grad, b.grad, atol=1e-8), key


@pytest.mark.parametrize("name", NAMES[:2])
def test_rounded_weights_are_exact_in_16_bits_and_nearly_the_same_function(name):
    model = Model(find_backbone(name)).eval()
    with_statistics(model.trunk)
    patches = torch.randint(0, 256, (2, 1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = model.features(patches)
        round_to_half(model)
        after = model.features(patches)
    assert torch.allclose(before, after, atol=0.02 * float(before.abs().max()))
    assert not torch.equal(before, after)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.half().float(), parameter), key
    for module in model.trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(torch.rsqrt(module.running_var + module.eps) == 1)
