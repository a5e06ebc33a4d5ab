"""Estimates how much accuracy each operator costs in eight bits, without quantising any.

To first order, rounding a tensor changes an image's score by the sum of the score's gradient times the rounding
errors. One pass forward and back per patch gives that for all operators at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization.calibrate import TensorsData
from torch import Tensor, nn

from pscr_engine.bundle import Exemplars
from pscr_engine.progress import Progress

from .graph import WeightedNode, weighted_nodes
from .layers import Layer, layers_called, watched
from .pixels import PixelNetwork


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What rounding a convolution or a product with weights to eight bits does to scores.

    Args:
        node: the operator.
        multiply_adds: per patch.
        weights: variance over images of the change of the score by rounded weights, in squared units of the labels.
        inputs: the same by rounded inputs.
        outputs: the same by rounded outputs; 0 where an activation function follows, whose values are rounded instead.
    """

    node: WeightedNode
    multiply_adds: float
    weights: float
    inputs: float
    outputs: float


def sensitivities(
    network: PixelNetwork,
    rounded: PixelNetwork,
    model: ModelProto,
    ranges: TensorsData,
    images: Iterable[NDArray[np.uint8]],
    exemplars: Exemplars,
    progress: Progress,
) -> list[Sensitivity]:
    """Estimate what each operator of a trunk costs in accuracy, in the order of computation.

    Args:
        network: in eval mode.
        rounded: the same with rounded weights.
        model: the float graph.
        ranges: range of each activation.
        images: patches of one image each, uint8 [D, P, P, 3].
        exemplars: that images are scored against.
        progress: called with the step, the images done, and their number as far as it is known.

    Raises:
        ValueError: graph and network don't correspond.
    """
    nodes, changes = weighted_nodes(model), []
    multiply_adds: list[float] = []
    layers: list[Layer] = []
    for number, patches in enumerate(images):
        gradient = _gradient(network, patches, exemplars) / len(patches)
        of_image = np.zeros((len(nodes), 3))
        for patch in torch.from_numpy(patches):  # one by one: a batch with its gradients takes gigabytes
            calls = _calls(network, patch[None], gradient)
            layers = layers or layers_called(rounded, patch[None].numpy())
            if [call.module.weight.numel() for call in calls] != [node.weights for node in nodes]:
                raise ValueError("the network's operators are not the graph's")
            of_image += [
                call.changes(node, layer, ranges) for call, node, layer in zip(calls, nodes, layers, strict=True)
            ]
            multiply_adds = multiply_adds or [call.multiply_adds for call in calls]
        changes.append(of_image)
        progress("find what loses accuracy in int8", number + 1, number + 1)
    variances = np.var(np.stack(changes), axis=0)
    return [
        Sensitivity(node, macs, *map(float, each))
        for node, macs, each in zip(nodes, multiply_adds, variances, strict=True)
    ]


def _gradient(network: PixelNetwork, patches: NDArray[np.uint8], exemplars: Exemplars) -> Tensor:
    """Compute the gradient of an image's score with respect to its features, float32 [1, C]."""
    with torch.no_grad():
        rows = torch.cat([network.patch_features(patch[None]) for patch in torch.from_numpy(patches)])
    features = rows.mean(dim=0, keepdim=True).requires_grad_(True)
    scores, _ = network.compare(features, torch.from_numpy(exemplars.hidden), torch.from_numpy(exemplars.labels))
    return torch.autograd.grad(scores.sum(), features)[0]


@dataclass(slots=True)
class _Call:
    """What an operator was given for a patch and what it gave, with the score's gradients."""

    module: Layer
    given: Tensor
    gave: Tensor

    @property
    def multiply_adds(self) -> float:
        channels = self.module.out_channels if isinstance(self.module, nn.Conv2d) else self.module.out_features
        return self.module.weight.numel() * self.gave.numel() / channels

    def changes(self, node: WeightedNode, rounded: Layer, ranges: TensorsData) -> tuple[float, float, float]:
        """Return the changes of the image's score by a layer's rounded weights, and by rounded inputs and outputs."""
        bias = self.module.bias
        by_weights = 0.0
        for exact, other in zip(self.module.parameters(), rounded.parameters(), strict=True):
            if exact.grad is not None:  # of a layer that is called twice, the first call tells both
                by_weights += float((exact.grad * (other.detach() - exact.detach())).sum())
                exact.grad = None
        by_inputs = 0.0 if node.reads_pixels else _change(self.given, self.given.detach(), ranges[node.input])
        by_outputs = 0.0
        if not node.activated:
            product = self.gave.detach()
            if node.bias_comes_after and bias is not None:
                product = product - bias.detach()
            by_outputs = _change(self.gave, product, ranges[node.output])
        return by_weights, by_inputs, by_outputs


def _calls(network: PixelNetwork, patch: Tensor, gradient: Tensor) -> list[_Call]:
    """Compute a patch's part of the gradient of the score, and return what each operator read and wrote."""
    calls: list[_Call] = []
    with _noted(network, calls):
        torch.autograd.backward((network.patch_features(patch) * gradient).sum())
    return calls


@contextmanager
def _noted(network: nn.Module, calls: list[_Call]) -> Iterator[None]:
    """Append to `calls` each call of a convolution or linear layer, with tensors that keep their gradients."""

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        own = inputs[0].view_as(inputs[0])  # each reader's gradient is its own
        return (own if own.requires_grad else own.requires_grad_(True), *inputs[1:])

    def after(module: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        inputs[0].retain_grad()
        output.retain_grad()
        calls.append(_Call(module, inputs[0], output))

    with watched(network, before, after) as layers:
        for layer in layers:
            layer.requires_grad_(True)
        try:
            yield
        finally:
            for layer in layers:
                layer.requires_grad_(False)


def _change(tensor: Tensor, values: Tensor, of: Any) -> float:
    """Return the change of the score if `values`, which `tensor` has a gradient for, are rounded."""
    assert tensor.grad is not None
    low, high = (float(each) for each in of.range_value)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, 255)
    return float((tensor.grad * (rounded - values)).sum())


def left_in_float(operators: Sequence[Sensitivity], share: float, most: float) -> list[str]:
    """Choose operators to leave in float: those with the most error for their multiply-adds.

    Args:
        operators: all of the trunk.
        share: of the variance that rounding causes, how much may be left.
        most: share of the multiply-adds that may be in float.

    Returns:
        The names of their nodes, in the order of computation; all that `most` allows, if that is not enough.
    """
    macs = {each.node.name: each.multiply_adds for each in operators}
    allowed, wanted = most * sum(macs.values()) * (1 + 1e-9), share * error_left(operators, set())
    kept: set[str] = set()
    while (left := error_left(operators, kept)) > wanted:
        best: set[str] = set()
        gain = 0.0
        # Inputs are no longer rounded only if all that computes them is in float, too.
        for new in ({each.node.name, *also} - kept for each in operators for also in ((), each.node.sources)):
            if not new or sum(macs[name] for name in kept | new) > allowed:
                continue
            each_gain = (left - error_left(operators, kept | new)) / sum(macs[name] for name in new)
            if each_gain > gain:
                best, gain = new, each_gain
        if not best:
            break
        kept |= best
    return [name for name in macs if name in kept]


def error_left(operators: Sequence[Sensitivity], in_float: set[str]) -> float:
    """Estimate the variance of scores that rounding causes with some operators in float, in squared label units."""
    error = 0.0
    for each in operators:
        if each.node.name not in in_float:
            error += each.weights + each.inputs + each.outputs
        elif not each.node.sources <= in_float:
            error += each.inputs
    return error
