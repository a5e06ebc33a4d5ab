"""Prepares a trunk for the precision it is exported in: folds batch norms and casts weights."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TRUNK_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


EXPORT_PRECISIONS = (*TRUNK_DTYPES, "int8")


def prepare_trunk(trunk: nn.Module, precision: str) -> nn.Module:
    """Return a copy of `trunk`, in eval mode, with weights of `precision`; for INT8, with FP32 ones, to be quantised.

    Except for FP32, batch norms are folded into their convolutions first, in FP32, so that the products are
    rounded once instead of twice.
    """
    trunk = copy.deepcopy(trunk).eval()
    if precision == "fp32":
        return trunk
    fold_batch_norms(trunk)
    return trunk.to(TRUNK_DTYPES.get(precision, torch.float32))


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution that is its predecessor among `module`'s children.

    That is the order in torchvision's ResNets (conv1, bn1, …; downsample.0, downsample.1) and timm's ConvNormAct
    (conv, bn), whose batch norm includes the activation.
    """
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            # timm's BatchNormAct2d has `drop` and `act` after the norm itself.
            setattr(
                module,
                name,
                nn.Sequential(*child.children()) if len(list(child.children())) else nn.Identity(),
            )
            previous = None
            continue
        previous = (name, child) if isinstance(child, nn.Conv2d) else None
        fold_batch_norms(child)
