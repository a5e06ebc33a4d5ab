import pytest
import timm
import torch
import torchvision
from pscr_export.precision import fold_batch_norms, prepare_trunk
from torch import nn


def randomise_batch_norms(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return model.eval()


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.resnet18(weights=None),
        lambda: torchvision.models.resnet50(weights=None),
        pytest.param(
            lambda: timm.create_model("inception_v4", pretrained=False, num_classes=0), marks=pytest.mark.slow
        ),
    ],
)
def test_folding_batch_norms_changes_nothing_but_rounding(build):
    model = randomise_batch_norms(build())
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        before = model(x)
        fold_batch_norms(model)
        after = model(x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-4 * before.abs().max().item())


def test_the_original_is_left_alone():
    model = randomise_batch_norms(torchvision.models.resnet18(weights=None))
    half = prepare_trunk(model, "fp16")
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert isinstance(model.bn1, nn.BatchNorm2d)
    assert prepare_trunk(model, "fp32") is not model
