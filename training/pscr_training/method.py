"""Contrastive regression (PSCR), and the baseline without references, as losses of a trunk and a regressor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pscr_export.backbones import Backbone
from pscr_export.network import MEAN, STD
from torch import Tensor, nn

METHODS = ("contrastive", "no-reference")
PAIRS = ("partner", "all")


class Model(nn.Module):
    """A trunk and a regressor, shared by both images of a pair.

    `folded_trunk`, if it is set, computes the same as the trunk, with the trunk's parameters, in less time.

    Args:
        backbone: which trunk.
        method: "contrastive": the regressor takes the features of two images, [2C] → C → 1, and gives how
            much better the first is; "no-reference": those of one, [C] → C/2 → 1, and gives its label.
    """

    def __init__(self, backbone: Backbone, method: str = "contrastive") -> None:
        super().__init__()
        C = backbone.feature_size
        self.backbone, self.method = backbone, method
        self.trunk = backbone.build()
        self.folded_trunk: Callable[[Tensor], Tensor] | None = None
        hidden, taken = (C, 2 * C) if method == "contrastive" else (C // 2, C)
        self.fc1, self.fc2 = nn.Linear(taken, hidden), nn.Linear(hidden, 1)
        self.regressor = nn.ModuleDict({"fc1": self.fc1, "fc2": self.fc2})
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def features(self, patches: Tensor) -> Tensor:
        """F of B images, [B, C]: the mean of the trunk's features over patches.

        Args:
            patches: uint8 [B, D, P, P, 3], or float [B, D, C]: the patches' features, computed before.
        """
        if patches.dtype != torch.uint8:
            return patches.mean(1)
        return self.patch_features(patches).mean(1)

    def patch_features(self, patches: Tensor) -> Tensor:
        """Features of each patch, [B, D, C], from patches, uint8 [B, D, P, P, 3]."""
        B, D = patches.shape[:2]
        x = patches.flatten(0, 1).permute(0, 3, 1, 2).to(self.get_buffer("mean").dtype) / 255
        x = (x - self.get_buffer("mean")) / self.get_buffer("std")
        run = self.folded_trunk or self.trunk
        out: Tensor = run(x)
        return out.reshape(B, D, -1)

    def regress(self, features: Tensor) -> Tensor:
        """[B, 2C] or [B, C] → [B]."""
        out: Tensor = self.fc2(torch.relu(self.fc1(features)))
        return out.squeeze(1)

    def difference(self, first: Tensor, second: Tensor) -> Tensor:
        """How much better the first image of each pair is, [B], from features [B, C]."""
        return self.regress(torch.cat([first, second], dim=1))


def contrastive_loss(model: Model, patches: Tensor, mos: Tensor, other_patches: Tensor, other_mos: Tensor) -> Tensor:
    """MSE(delta(a, b), s_a − s_b) + MSE(delta(b, a), s_b − s_a), on the label scale.

    Both images of all pairs go through the trunk at once: batch norms see them together, as in the authors' training.

    Args:
        model: of the method "contrastive".
        patches: uint8 [B, D, P, P, 3].
        mos: float [B].
        other_patches: as `patches`.
        other_mos: as `mos`.
    """
    both = model.features(torch.cat([patches, other_patches]))
    first, second = both.chunk(2)
    there = nn.functional.mse_loss(model.difference(first, second), mos - other_mos)
    back = nn.functional.mse_loss(model.difference(second, first), other_mos - mos)
    return there + back


def all_pairs_loss(model: Model, patches: Tensor, mos: Tensor) -> Tensor:
    """The same loss over all ordered pairs of different images of a batch, for the price of encoding each once.

    Args:
        model: of the method "contrastive".
        patches: uint8 [B, D, P, P, 3], B at least 2.
        mos: float [B].
    """
    features = model.features(patches)
    B, C = features.shape
    # The first layer by columns: what it makes of the first image, and of the second.
    first = features @ model.fc1.weight[:, :C].T
    second = features @ model.fc1.weight[:, C:].T + model.fc1.bias
    difference = model.fc2(torch.relu(first[:, None] + second[None])).squeeze(2)
    off = (difference - (mos[:, None] - mos[None])) ** 2
    others = ~torch.eye(B, dtype=torch.bool, device=off.device)
    out: Tensor = 2 * off.masked_select(others).mean()
    return out


def no_reference_loss(model: Model, patches: Tensor, mos: Tensor) -> Tensor:
    """MSE(regressor(f(a)), s_a)."""
    return nn.functional.mse_loss(model.regress(model.features(patches)), mos)
