"""The eight trunk networks of PSCR, built from torchvision and timm, with the key names of checkpoints.

Every trunk maps normalised patches, float [N, 3, P, P], to pooled features [N, C]. Feature sizes,
pooling and key names are those of the PSCR authors' implementation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import timm
import torchvision
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Backbone:
    """One kind of trunk network, and how its checkpoints are recognised.

    Args:
        name: as in `--backbone`.
        feature_size: C, the number of features of a patch.
        patch_size: P, the side in pixels of the patches that the authors use it with.
        build: makes the trunk with arbitrary weights; the trunk's `state_dict` has the checkpoint's keys.
        marker: a key that this backbone's checkpoints have.
        absent: a key that they don't have, to tell it from a smaller or larger relative.
        unused: regular expression of keys that may be in a checkpoint and are not needed for scoring.
    """

    name: str
    feature_size: int
    patch_size: int
    build: Callable[[], nn.Module]
    marker: str
    absent: str | None = None
    unused: str = r"(?!)"

    def recognises(self, keys: Iterable[str]) -> bool:
        """Tell whether a checkpoint with these keys looks like this backbone's."""
        present = set(keys)
        return self.marker in present and self.absent not in present

    def is_unused(self, key: str) -> bool:
        """Tell whether a checkpoint may have `key` although scoring does not need it."""
        return re.fullmatch(self.unused, key) is not None


class _Vgg(nn.Module):
    """VGG: convolutions, then global average pooling; the classifier is left out."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.features(x)
        return out.mean((2, 3))


class _VitBeforeNorm(nn.Module):
    """ViT-L/16: the CLS token of the last block's output, before the final norm."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = timm.create_model("vit_large_patch16_224", pretrained=False, num_classes=0)
        self.vit.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.vit(x)
        return out


class _Swin(nn.Module):
    """Swin-B: the final norm, then the mean over all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.model = timm.create_model("swin_base_patch4_window7_224", pretrained=False, num_classes=0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model.forward_features(x)  # type: ignore[operator]
        return out.mean((1, 2))


def _resnet(name: str) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    model.fc = nn.Identity()
    return model


def _vgg(name: str) -> nn.Module:
    return _Vgg(torchvision.models.get_model(name, weights=None, init_weights=False).features)


def _inceptionv4() -> nn.Module:
    model: nn.Module = timm.create_model("inception_v4", pretrained=False, num_classes=0)
    return model


def _mae() -> nn.Module:
    # With its head removed, timm's model returns the CLS token after the final norm.
    model: nn.Module = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=0)
    return model


_FC, _CLASSIFIER = r"fc\..*", r"classifier\..*"

BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            "resnet18",
            512,
            224,
            lambda: _resnet("resnet18"),
            "layer1.0.conv1.weight",
            "layer1.0.conv3.weight",
            _FC,
        ),
        Backbone("resnet50", 2048, 224, lambda: _resnet("resnet50"), "layer1.0.conv3.weight", None, _FC),
        Backbone("vgg16", 512, 224, lambda: _vgg("vgg16"), "features.28.weight", "features.34.weight", _CLASSIFIER),
        Backbone("vgg19", 512, 224, lambda: _vgg("vgg19"), "features.34.weight", None, _CLASSIFIER),
        Backbone("inceptionv4", 1536, 299, _inceptionv4, "features.0.conv.weight", None, r"last_linear\..*"),
        Backbone("vit", 1024, 224, _VitBeforeNorm, "vit.cls_token", None, r"vit\.(norm|head)\..*"),
        Backbone(
            "swin",
            1024,
            224,
            _Swin,
            "model.patch_embed.proj.weight",
            None,
            r"model\.head\..*|.*\.(relative_position_index|attn_mask)",
        ),
        Backbone("mae", 768, 224, _mae, "cls_token", None, r"head\..*"),
    )
}
