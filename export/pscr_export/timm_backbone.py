"""Makes a trunk of any timm architecture, for `--backbone timm:NAME`.

Its features are those after timm's global pooling, [N, C]; its keys are timm's own.
"""

from __future__ import annotations

import difflib
from functools import cache

import timm
import torch
from torch import nn

from pscr_engine.errors import CheckpointError, one_line

from .backbones import BACKBONES, Backbone

PREFIX = "timm:"
_CLASSIFIER = r"(classifier|fc|head\.fc|head|last_linear)\.(weight|bias)"


def find_backbone(name: str) -> Backbone:
    """Return the backbone of one of the eight PSCR trunks, or of a timm architecture.

    Args:
        name: as in `--backbone`: "resnet18" or "timm:tf_efficientnet_lite0", for example.

    Raises:
        CheckpointError: there is no such trunk, or it can't be built or pooled.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith(PREFIX):
        return _timm_backbone(name.removeprefix(PREFIX))
    raise CheckpointError(f"backbone {name!r}: choose from {', '.join(BACKBONES)}, or timm:NAME for any of timm's")


@cache
def _timm_backbone(architecture: str) -> Backbone:
    if architecture not in timm.list_models():
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise CheckpointError(
            f"backbone {PREFIX}{architecture}: timm {timm.__version__} has no such architecture{hint}"
        )
    trunk = build_timm_trunk(architecture)
    side = int(trunk.pretrained_cfg.get("input_size", (3, 224, 224))[-1])  # type: ignore[union-attr, operator]
    return Backbone(
        PREFIX + architecture,
        check_timm_trunk(architecture, trunk, side),
        side,
        lambda: build_timm_trunk(architecture),
        marker=next(iter(trunk.state_dict())),
        unused=_CLASSIFIER,
    )


def build_timm_trunk(architecture: str) -> nn.Module:
    """Build a timm network without its classifier, with random weights.

    Raises:
        CheckpointError: timm can't build it.
    """
    try:
        trunk: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0)
    except Exception as error:
        raise CheckpointError(
            f"backbone {PREFIX}{architecture}: timm can't build it without a classifier ({one_line(error, 120)})"
        ) from error
    return trunk


def check_timm_trunk(architecture: str, trunk: nn.Module, patch_size: int) -> int:
    """Return C, the number of features of a patch, by running one patch through the trunk.

    Args:
        architecture: timm's name.
        trunk: the network that `build_timm_trunk` made.
        patch_size: P.

    Raises:
        CheckpointError: it can't take patches of this size, or its features are not pooled to [N, C].
    """
    training = trunk.training
    try:
        with torch.inference_mode():
            features = trunk.eval()(torch.zeros(1, 3, patch_size, patch_size))
    except Exception as error:
        raise CheckpointError(
            f"backbone {PREFIX}{architecture}: can't take patches of {patch_size} pixels ({one_line(error, 120)})"
        ) from error
    finally:
        trunk.train(training)
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise CheckpointError(
            f"backbone {PREFIX}{architecture}: gives {shape}, not one pooled vector per patch; choose another"
        )
    return int(features.shape[1])
