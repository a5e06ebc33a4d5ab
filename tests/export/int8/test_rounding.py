import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pscr_export.int8.pixels import PixelNetwork
from pscr_export.int8.rounding import gptq, rounded_together, with_layers_of
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from ..small import small_checkpoint

C, P, D = 8, 32, 2


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        return torch.relu(x + self.two(torch.relu(self.one(x))))


class Attended(nn.Module):
    """Products with weights, after a convolution that makes tokens."""

    def __init__(self):
        super().__init__()
        self.tokens, self.norm = nn.Conv2d(3, 12, 8, 8), nn.LayerNorm(12)
        self.one, self.two = nn.Linear(12, C), nn.Linear(12, C)

    def forward(self, x):
        x = self.norm(self.tokens(x).flatten(2).transpose(1, 2))
        return torch.softmax(self.one(x), dim=1).mul(self.two(x)).sum(dim=1)


def convolutions():
    """Make a trunk with groups, two kinds of padding, a layer without a bias, and one that is called twice."""
    twice = nn.Conv2d(12, 12, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.ReLU(),
        nn.Conv2d(16, 12, 1, groups=4), nn.MaxPool2d(2), Conv2dSame(12, 12, 3, stride=2), nn.ReLU(), Residual(12),
        twice, nn.ReLU(), twice, nn.ReLU(), nn.Conv2d(12, C, 3, padding="same"), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


def network_of(trunk):
    torch.manual_seed(0)
    checkpoint = small_checkpoint(C, trunk)
    return PixelNetwork(checkpoint.trunk, checkpoint, patches=D).eval()


def pictures(seed, images=4):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (D, P, P, 3), dtype=np.uint8) // np.uint8(rng.integers(1, 5)) for _ in range(images)]


def variance_of(groups, values, common, seed):
    """Make the variance of values that have something in common."""
    rng = torch.Generator().manual_seed(seed)
    samples = torch.randn(groups, values, 4 * values, generator=rng)
    samples += common * torch.randn(groups, 1, 4 * values, generator=rng)
    return samples @ samples.mT / samples.shape[2]


def changed_outputs(weights, rounded, variance):
    """Compute the mean square of what rounding changes in outputs."""
    change = weights - rounded
    return float((change @ variance * change).sum())


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 150)),
    st.floats(0, 3),
    st.sampled_from([64, 127]),
    st.integers(0, 2**31),
)
def test_weights_are_multiples_that_change_outputs_little(shape, common, top, seed):
    groups, _, values = shape
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weights[torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.1] = 0
    variance = variance_of(groups, values, common, seed)
    kept = variance.clone()
    rounded = gptq(weights, variance, top)
    assert torch.equal(variance, kept)
    scales = weights.abs().amax(dim=2, keepdim=True).clamp(min=1e-30) / top
    multiples = rounded / scales
    torch.testing.assert_close(multiples, multiples.round(), rtol=0, atol=1e-3)
    assert multiples.abs().max() <= top * (1 + 1e-6)
    assert torch.equal(rounded[weights == 0], weights[weights == 0]), "zeros make the shape of a kernel"
    largest = weights.abs() == weights.abs().amax(dim=2, keepdim=True)
    assert torch.equal(rounded[largest], weights[largest]), "the scale stays"
    by_itself = (weights / scales).round() * scales
    # A choice made one weight after another is nearly always better, and never much worse.
    limit = 3 * changed_outputs(weights, by_itself, variance) + 1e-9
    assert changed_outputs(weights, rounded, variance) <= limit


def test_what_varies_alike_is_made_good():
    weights = torch.randn(1, 16, 100, generator=torch.Generator().manual_seed(0))
    variance = variance_of(1, 100, 3.0, 0)
    scales = weights.abs().amax(dim=2, keepdim=True) / 64
    by_itself = changed_outputs(weights, (weights / scales).round() * scales, variance)
    assert changed_outputs(weights, gptq(weights, variance, 64), variance) < 0.3 * by_itself


def test_values_that_were_never_seen():
    weights = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    rounded = gptq(weights, torch.zeros(1, 8, 8), 127)
    assert torch.isfinite(rounded).all()
    assert torch.equal(gptq(torch.zeros(1, 2, 8), torch.eye(8)[None], 127), torch.zeros(1, 2, 8))


@pytest.mark.medium
@pytest.mark.parametrize(("trunk", "share"), [(convolutions, 0.5), (Attended, 0.7)])
def test_features_of_a_network_change_less(trunk, share):
    network = network_of(trunk())
    rounded = rounded_together(network, pictures(1, 8), seven_bits=True)
    plain = network_of(trunk())
    plain.load_state_dict(network.state_dict())
    layers = 0
    for (name, before), after in zip(network.named_parameters(), rounded.parameters(), strict=True):
        if before.ndim < 2 or not name.startswith(("trunk", "first")):
            continue
        scales = before.detach().abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (before.ndim - 1)) / 64
        multiples = after.detach() / scales
        if name == "trunk.13.weight":  # its padding is given by a word
            assert torch.equal(before, after)
            continue
        torch.testing.assert_close(multiples, multiples.round(), rtol=0, atol=1e-3)
        plain.get_parameter(name).data = (before.detach() / scales).round() * scales
        layers += 1
    assert layers >= 3

    def error(candidate):
        with torch.no_grad():
            x = torch.from_numpy(np.concatenate(pictures(2, 8)))
            return float(((candidate.patch_features(x) - network.patch_features(x)) ** 2).mean())

    assert error(rounded) < share * error(plain)


@pytest.mark.medium
def test_layers_that_stay_as_they_are():
    network = network_of(convolutions())
    rounded = rounded_together(network, pictures(1), seven_bits=False)
    kept = {name: value.clone() for name, value in rounded.state_dict().items()}
    calls = 9  # of eight layers, one of them twice
    mixed = with_layers_of(rounded, network, [index in (0, 4) for index in range(calls)], pictures(1)[0][:1])
    assert all(torch.equal(value, kept[name]) for name, value in rounded.state_dict().items()), "it is a copy"
    taken = {name for name, value in mixed.state_dict().items() if not torch.equal(value, kept[name])}
    assert taken == {f"{layer}.{part}" for layer in ("first.convolution", "trunk.8.one") for part in ("weight", "bias")}
    state = network.state_dict()
    assert all(torch.equal(mixed.state_dict()[name], state[name]) for name in taken)
    with pytest.raises(ValueError, match="zip"):
        with_layers_of(rounded, network, [True], pictures(1)[0][:1])


def test_the_first_convolution_stays_one_kernel_at_several_columns():
    """Check what lets OpenVINO compute it on three channels, see `pscr_engine.backends.openvino_graph`."""
    network = network_of(convolutions())
    rounded = rounded_together(network, pictures(1), seven_bits=True)
    first, kernel, bias = rounded.first, rounded.first.convolution.weight, rounded.first.convolution.bias
    assert first.outputs == 4
    apart = kernel.reshape(4, 16, 4, 3, 3, first.groups).permute(0, 1, 3, 4, 5, 2).reshape(4, 16, 3, 3, -1)
    for output in range(4):
        assert torch.equal(apart[output, ..., output : output + 3], apart[0, ..., :3])
        assert not apart[output, ..., :output].any()
        assert not apart[output, ..., output + 3 :].any()
        assert torch.equal(bias.reshape(4, 16)[output], bias[:16])
    assert not torch.equal(kernel, network.first.convolution.weight)
