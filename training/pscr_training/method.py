"""The model that is trained, and its losses: contrastive regression (PSCR) and the no-reference baseline."""

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
        method: "contrastive": the regressor takes the features of two images, [2C] → C → 1, and predicts how
            much better the first is; "no-reference": those of one, [C] → C/2 → 1, and predicts its label.
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
        """Compute the features of B images, [B, C]: the trunk's output, averaged over patches.

        Args:
            patches: uint8 [B, D, P, P, 3], or float [B, D, C]: the patches' features, computed before.
        """
        if patches.dtype != torch.uint8:
            return patches.mean(1)
        return self.patch_features(patches).mean(1)

    def patch_features(self, patches: Tensor) -> Tensor:
        """Compute the features of each patch, [B, D, C], from patches, uint8 [B, D, P, P, 3]."""
        B, D = patches.shape[:2]
        x = patches.flatten(0, 1).permute(0, 3, 1, 2).to(self.get_buffer("mean").dtype) / 255
        x = (x - self.get_buffer("mean")) / self.get_buffer("std")
        run = self.folded_trunk or self.trunk
        out: Tensor = run(x)
        return out.reshape(B, D, -1)

    def regress(self, features: Tensor) -> Tensor:
        """Apply the regressor to features, [B, 2C] or [B, C], and return [B]."""
        out: Tensor = self.fc2(torch.relu(self.fc1(features)))
        return out.squeeze(1)

    def difference(self, first: Tensor, second: Tensor) -> Tensor:
        """Predict how much better the first image of each pair is, [B], from the features of both, [B, C]."""
        return self.regress(torch.cat([first, second], dim=1))


def contrastive_loss(model: Model, patches: Tensor, mos: Tensor, other_patches: Tensor, other_mos: Tensor) -> Tensor:
    """Compute the loss of pairs, MSE(delta(a, b), s_a − s_b) + MSE(delta(b, a), s_b − s_a), on the label scale.

    Both images of all pairs go through the trunk at once: batch norms see them together, as in the authors' training.

    Args:
        model: a model of the method "contrastive".
        patches: uint8 [B, D, P, P, 3].
        mos: float [B], the labels.
        other_patches: those of the partners.
        other_mos: those of the partners.
    """
    both = model.features(torch.cat([patches, other_patches]))
    first, second = both.chunk(2)
    loss_ab = nn.functional.mse_loss(model.difference(first, second), mos - other_mos)
    loss_ba = nn.functional.mse_loss(model.difference(second, first), other_mos - mos)
    return loss_ab + loss_ba


def all_pairs_loss(model: Model, patches: Tensor, mos: Tensor) -> Tensor:
    """Compute the contrastive loss over all ordered pairs of different images of a batch, encoding each image once.

    Args:
        model: a model of the method "contrastive".
        patches: uint8 [B, D, P, P, 3], B at least 2.
        mos: float [B], the labels.
    """
    features = model.features(patches)
    B, C = features.shape
    # The first layer's product, split into the first image's part and the second's.
    first = features @ model.fc1.weight[:, :C].T
    second = features @ model.fc1.weight[:, C:].T + model.fc1.bias
    difference = model.fc2(torch.relu(first[:, None] + second[None])).squeeze(2)
    errors = (difference - (mos[:, None] - mos[None])) ** 2
    others = ~torch.eye(B, dtype=torch.bool, device=errors.device)
    out: Tensor = 2 * errors.masked_select(others).mean()
    return out


def no_reference_loss(model: Model, patches: Tensor, mos: Tensor) -> Tensor:
    """Compute the loss of the no-reference baseline, MSE(regressor(f(a)), s_a)."""
    return nn.functional.mse_loss(model.regress(model.features(patches)), mos)
