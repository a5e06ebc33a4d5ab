"""Rounds weights to eight bits together, so that the outputs of a layer change the least (GPTQ).

What one rounded weight changes can be made good by others that read values which vary alike (Frantar et al., 2022,
"GPTQ: Accurate post-training quantization for generative pre-trained transformers").
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional

from .layers import Layer, layers_called, watched
from .pixels import PixelNetwork

# A layer's outputs at about this many places of a patch are looked at.
_PLACES = 128
# Share of the mean variance that is added to each input's: what was seen of a few images isn't all there is.
_DAMPING = 0.01
# Values whose effects on later ones are summed before these are changed.
_BLOCK = 32


def rounded_together(
    network: PixelNetwork,
    images: Iterable[NDArray[np.uint8]],
    *,
    seven_bits: bool,
    after_layer: Callable[[int, int], None] = lambda done, total: None,
) -> PixelNetwork:
    """Return a copy of a network whose weights are whole multiples of the scales that INT8 gives them.

    Where a layer has a bias, that takes what changes on average.

    Args:
        network: in eval mode.
        images: patches of one image each, uint8 [D, P, P, 3], that inputs are measured on.
        seven_bits: whether weights are from -64 to 64, else from -127 to 127.
        after_layer: called with the number of layers that are done, and of all.
    """
    result = copy.deepcopy(network)
    moments: dict[Layer, _Moments] = {}

    def measure(layer: Layer, inputs: tuple[Tensor]) -> None:
        if not (isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str)):  # else it is rounded by itself later
            moments.setdefault(layer, _Moments()).add(_columns(layer, inputs[0].detach()))

    with torch.no_grad(), watched(result, measure):
        for patches in images:
            for patch in torch.from_numpy(patches):
                result.patch_features(patch[None])
    for number, (layer, seen) in enumerate(moments.items()):
        _round(layer, seen, 64 if seven_bits else 127)
        after_layer(number + 1, len(moments))
    if result.first is not None:
        # They are one output at different columns, and OpenVINO's graph has it once.
        result.first.repeat_first_output()
    return result


def with_layers_of(
    network: PixelNetwork, other: PixelNetwork, chosen: Sequence[bool], patch: NDArray[np.uint8]
) -> PixelNetwork:
    """Return a copy of a network in which some layers have the weights and biases of another one's.

    Args:
        network: in eval mode.
        other: of the same layers.
        chosen: for each layer, in the order in which they are called, whether it is taken from `other`.
        patch: any, uint8 [1, P, P, 3].

    Raises:
        ValueError: the networks call another number of layers.
    """
    result = copy.deepcopy(network)
    for take, layer, source in zip(chosen, layers_called(result, patch), layers_called(other, patch), strict=True):
        if take:
            layer.load_state_dict(source.state_dict())
    return result


class _Moments:
    """Sums over places of what a layer's outputs are computed from: per group, the values and their products."""

    def __init__(self) -> None:
        self.places = 0
        self.values: Tensor | float = 0.0
        self.products: Tensor | float = 0.0

    def add(self, inputs: Tensor) -> None:
        """Add inputs, float32 [groups, values, places]."""
        self.places += inputs.shape[2]
        self.values = self.values + inputs.sum(dim=2)
        self.products = self.products + inputs @ inputs.mT

    def mean(self) -> Tensor:
        """Return the mean of each value, float32 [groups, values]."""
        return torch.as_tensor(self.values) / self.places

    def variance(self, *, about_mean: bool) -> Tensor:
        """Return mean products, of deviations from the mean or of values, float32 [groups, values, values]."""
        products = torch.as_tensor(self.products) / self.places
        mean = self.mean()
        return products - mean[:, :, None] * mean[:, None, :] if about_mean else products


def _columns(layer: Layer, x: Tensor) -> Tensor:
    """Return what some of a layer's outputs are computed from, float32 [groups, values, places]."""
    if isinstance(layer, nn.Linear):
        columns, groups = x.reshape(-1, x.shape[-1]).mT, 1
    else:
        if isinstance(layer, Conv2dSame):
            x = pad_same(x, list(layer.kernel_size), list(layer.stride), list(layer.dilation))
        assert not isinstance(layer.padding, str)
        places = x.shape[2] * x.shape[3] / (layer.stride[0] * layer.stride[1])
        apart = max(1, int((places / _PLACES) ** 0.5))  # a grid of places: all of them take gigabytes
        stride = (layer.stride[0] * apart, layer.stride[1] * apart)
        unfolded = functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, stride)
        columns, groups = unfolded.transpose(0, 1).flatten(1), layer.groups
    columns = columns[:, :: -(-columns.shape[1] // _PLACES)]
    return columns.reshape(groups, -1, columns.shape[1])


def _round(layer: Layer, seen: _Moments, top: int) -> None:
    """Round a layer's weights to multiples of a scale per output channel, at most `top` of them."""
    mean = seen.mean()
    weights = layer.weight.detach().reshape(len(mean), -1, mean.shape[1])
    rounded = gptq(weights, seen.variance(about_mean=layer.bias is not None), top)
    layer.weight.data = rounded.reshape(layer.weight.shape)
    if layer.bias is not None:
        layer.bias.data += ((weights - rounded) @ mean[:, :, None]).flatten()


def gptq(weights: Tensor, variance: Tensor, top: int) -> Tensor:
    """Round weights one after another, and change those that are left to make up for it.

    Args:
        weights: float32 [groups, outputs, values].
        variance: of the values, float32 [groups, values, values].
        top: the largest multiple; an output's largest weight gets it, and is not changed. Nor are weights of zero.

    Returns:
        float32 [groups, outputs, values], whole multiples of each output's largest weight / `top`.
    """
    largest = weights.abs().amax(dim=2)
    scales = largest.clamp(min=1e-30) / top
    fixed = (weights == 0) | (weights.abs() == largest[:, :, None])
    variance = variance.double()
    order = variance.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)[:, :, None]
    effects = _effects(variance.gather(1, order.expand_as(variance)).gather(2, order.mT.expand_as(variance)))
    # A row per value: what one changes in all outputs is side by side in memory.
    in_order = order.expand(-1, -1, weights.shape[1])
    left, fixed = weights.mT.gather(1, in_order), fixed.mT.gather(1, in_order)
    exact, rounded = left.clone(), torch.empty_like(left)
    values = left.shape[1]
    for start in range(0, values, _BLOCK):
        end = min(start + _BLOCK, values)
        block, errors = left[:, start:end], torch.empty_like(left[:, start:end])
        for i in range(end - start):
            at = start + i
            nearest = (block[:, i] / scales).round_().clamp_(-top, top).mul_(scales)
            rounded[:, at] = torch.where(fixed[:, at], exact[:, at], nearest)
            errors[:, i] = (block[:, i] - rounded[:, at]) / effects[:, at, at, None]
            block[:, i + 1 :] -= effects[:, at, at + 1 : end, None] * errors[:, i, None]
        left[:, end:] -= effects[:, start:end, end:].mT @ errors
    return torch.empty_like(rounded).scatter_(1, in_order, rounded).mT.contiguous()


def _effects(variance: Tensor) -> Tensor:
    """Return by what each value's error changes the best choice of later ones: float32, upper triangles."""
    diagonal = variance.diagonal(dim1=1, dim2=2)
    diagonal += _DAMPING * diagonal.mean(dim=1, keepdim=True) + 1e-12
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(variance))
    effects: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return effects.float()
