"""Rounds a trained model to 16-bit weights, so that its bundle takes half the space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pscr_engine.errors import PscrError

from .frozen_norms import convolutions_and_norms, folded
from .method import Model


@torch.no_grad()
def round_to_half(model: Model) -> None:
    """Round every weight of a model, each once, to a value that FP16 represents exactly.

    Batch norms are folded into their convolutions first; they stay in place and do nothing but add the shift. The
    model computes in FP32 as before.

    Raises:
        PscrError: a weight is too large for FP16.
    """
    for _, convolution, _, norm in convolutions_and_norms(model.trunk):
        weight, bias = folded(convolution, norm)
        convolution.weight.copy_(weight)
        if convolution.bias is not None:
            convolution.bias.zero_()
        _do_nothing_but_add(norm, bias)
    for name, parameter in model.named_parameters():
        rounded = parameter.half().float()
        if not bool(torch.isfinite(rounded).all()):
            raise PscrError(f"{name}: has weights beyond what 16 bits hold; keep the model in FP32")
        parameter.copy_(rounded)


def _do_nothing_but_add(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """Set a batch norm so that in evaluation mode its factor is exactly 1 and its shift is `bias`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.weight.fill_(1)
    norm.bias.copy_(bias)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    while bool((torch.rsqrt(norm.running_var[:1] + norm.eps) != 1).any()):
        norm.running_var.copy_(torch.nextafter(norm.running_var, torch.full_like(norm.running_var, 2.0)))
