"""Loads the weights that the training of a trunk begins with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pscr_export.backbones import Backbone
from pscr_export.safe_load import load_safely, unusable_kind
from pscr_export.timm_backbone import PREFIX
from pscr_export.wrapped_keys import without_wrappers
from torch import Tensor, nn

from pscr_engine.errors import CheckpointError, MissingDependencyError, PscrError, one_line, option, wrong_usage

from .efficientnet_lite import efficientnet_lite_as_timm, is_efficientnet_lite, with_imagenet_input

log = logging.getLogger("pscr_training")

_TORCHVISION = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "vgg16": "VGG16_Weights.IMAGENET1K_V1",
    "vgg19": "VGG19_Weights.IMAGENET1K_V1",
}
_TIMM = {
    "inceptionv4": "inception_v4",
    "vit": "vit_large_patch16_224",
    "swin": "swin_base_patch4_window7_224",
    "mae": "vit_base_patch16_224.mae",
}


def load_weights(trunk: nn.Module, backbone: Backbone, source: str) -> None:
    """Fill a trunk with the weights that its training begins with.

    Args:
        trunk: a trunk of the kind `backbone`; it is changed.
        backbone: the trunk's kind.
        source: "imagenet" (downloaded), "none" (random, as they are), or a file of weights.

    Raises:
        PscrError: they can't be downloaded.
        CheckpointError: the file does not hold this trunk's weights.
    """
    if source == "none":
        return
    state = _downloaded(backbone) if source == "imagenet" else _read(Path(source))
    _fill(trunk, backbone, state, source)


def _downloaded(backbone: Backbone) -> Mapping[str, Tensor]:
    try:
        if backbone.name in _TORCHVISION:
            from torchvision.models import get_weight

            state: Mapping[str, Tensor] = get_weight(_TORCHVISION[backbone.name]).get_state_dict(check_hash=True)
            return state
        import timm

        architecture = _TIMM.get(backbone.name, backbone.name.removeprefix(PREFIX))
        pretrained: Mapping[str, Tensor] = timm.create_model(architecture, pretrained=True).state_dict()
    except ImportError as error:
        raise MissingDependencyError(str(error.name), "training", "cpu,export,train") from error
    except Exception as error:
        raise PscrError(
            f"the ImageNet weights of {backbone.name} can't be downloaded ({type(error).__name__}); "
            f"give a file with {option('--weights')} FILE, or train from random ones with {option('--weights', 'none')}"
        ) from error
    return pretrained


def _read(file: Path) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise wrong_usage(CheckpointError(f"{option('--weights')} {file}: no such file"))
    content: Any = _read_safetensors(file) if file.suffix == ".safetensors" else load_safely(file)
    for key in ("backbone", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: holds no dictionary of tensors")
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return without_wrappers(tensors, f"{file}: it")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    if kind := unusable_kind(file):
        raise CheckpointError(f"{file}: {kind}")
    try:
        from safetensors.torch import load_file

        return load_file(file)
    except Exception as error:
        raise CheckpointError(f"{file}: no safetensors file, or a damaged one ({one_line(error, 120)})") from error


def _fill(trunk: nn.Module, backbone: Backbone, state: Mapping[str, Tensor], source: str) -> None:
    wanted = trunk.state_dict()
    if is_efficientnet_lite(state):
        state = with_imagenet_input(efficientnet_lite_as_timm(state, backbone.name, source))
    named = _renamed(state, wanted)
    lacking = [key for key in wanted if key not in named and not key.endswith("num_batches_tracked")]
    wrong = [key for key in wanted if key in named and named[key].shape != wanted[key].shape]
    if lacking or wrong:
        problem = f"lacks {lacking[0]}" if lacking else f"has {wrong[0]} in another shape"
        raise CheckpointError(f"{source}: not the weights of {backbone.name}: it {problem}")
    trunk.load_state_dict({key: named[key] for key in wanted if key in named}, strict=False)
    log.info("%s begins with %s", backbone.name, source)


def _renamed(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename keys to those of the trunk: libraries put another prefix before them, or none."""
    prefixes = {"", *(key.split(".")[0] + "." for key in wanted)}
    best: dict[str, Tensor] = {}
    for prefix in prefixes:
        for candidate in (
            {prefix + key: value for key, value in state.items()},
            {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)},
        ):
            if len(candidate.keys() & wanted.keys()) > len(best.keys() & wanted.keys()):
                best = candidate
    return best
