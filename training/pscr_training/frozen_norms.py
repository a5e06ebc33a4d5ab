"""Runs a trunk whose batch norms keep their statistics, with each norm folded into its convolution.

A batch norm that keeps its statistics is a factor and a shift per channel. Applied to the weights of the convolution
before it, instead of to its output, it costs next to nothing, forwards and backwards; the trained parameters, their
gradients and the checkpoint stay those of the trunk as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from pscr_export.precision import fold_batch_norms
from torch import Tensor, nn
from torch.func import functional_call


class FoldedTrunk:
    """A trunk with its batch norms folded, computed from the trunk's own parameters at each call.

    Differentiable: gradients arrive at the parameters of the trunk.

    Args:
        trunk: float [N, 3, P, P] → [N, C]; its batch norms use the stored statistics, whatever its mode.
    """

    def __init__(self, trunk: nn.Module) -> None:
        self._trunk = trunk
        self._folded = copy.deepcopy(trunk).eval()
        fold_batch_norms(self._folded)
        self._pairs = list(convolutions_and_norms(trunk))
        self._replaced = {name for pair in self._pairs for name in pair[::2]}

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the features, float [N, C], of normalised patches, float [N, 3, P, P]."""
        state: dict[str, Tensor] = {
            name: tensor
            for name, tensor in (*self._trunk.named_parameters(), *self._trunk.named_buffers())
            if name.rpartition(".")[0] not in self._replaced
        }
        for convolution_name, convolution, _, norm in self._pairs:
            weight, bias = folded(convolution, norm)
            state[f"{convolution_name}.weight"], state[f"{convolution_name}.bias"] = weight, bias
        out: Tensor = functional_call(self._folded, state, (x,))
        return out


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one convolution that computes what both do, with the norm's stored statistics."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    before = 0 if convolution.bias is None else convolution.bias
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias + (before - mean) * scale


def convolutions_and_norms(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Conv2d, str, nn.BatchNorm2d]]:
    """Yield each convolution that `fold_batch_norms` would fold and its batch norm, each after its name."""
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            yield (*previous, prefix + name, child)
            previous = None
            continue
        previous = (prefix + name, child) if isinstance(child, nn.Conv2d) else None
        yield from convolutions_and_norms(child, f"{prefix}{name}.")


def keep_batch_norms(module: nn.Module) -> None:
    """Put every batch norm of a network into evaluation mode: it keeps its statistics."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
