"""Finds the layers of a trunk that have weights to quantise, and watches them while they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .pixels import PixelNetwork

Layer = nn.Conv2d | nn.Linear
"""A convolution or a product with weights."""


@contextmanager
def watched(
    network: nn.Module, before: Callable[..., Any], after: Callable[..., Any] | None = None
) -> Iterator[list[nn.Conv2d | nn.Linear]]:
    """Call functions whenever a layer is called, until the end of the context.

    Args:
        network: whose layers are watched.
        before: gets a layer and its inputs, and may return others (PyTorch's forward pre-hook).
        after: gets them and the output (PyTorch's forward hook).

    Yields:
        The layers, in the order in which they are registered.
    """
    layers: list[Layer] = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    if after is not None:
        hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def layers_called(network: PixelNetwork, patch: NDArray[np.uint8]) -> list[nn.Conv2d | nn.Linear]:
    """Return a trunk's layers in the order in which they are called, one that is called twice two times.

    Args:
        network: in eval mode.
        patch: any, uint8 [1, P, P, 3].
    """
    called: list[Layer] = []
    with torch.no_grad(), watched(network, lambda layer, _: called.append(layer)):
        network.patch_features(torch.from_numpy(patch))
    return called
