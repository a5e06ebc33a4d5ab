"""The network that is exported: patches and exemplar cache in, scores out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_NARROWEST_SLICE = 16
_SLICE_VALUES = 16 * 1024
"""Most values of one image in a slice of the head, [channels, M], unless M is too large: 64 KiB fit in a cache."""


def slice_channels(channels: int, exemplars: int | None) -> int:
    """Decide how many channels a slice of the head has.

    Few exemplars need few slices, each of which is a handful of nodes; many need narrow ones, which bound the memory.

    Args:
        channels: C.
        exemplars: M that the network is made for; None for any.
    """
    if exemplars is None:
        return min(channels, _NARROWEST_SLICE)
    return min(channels, max(_NARROWEST_SLICE, _SLICE_VALUES // max(1, exemplars)))


class ScoringNetwork(nn.Module):
    """The PSCR network with a factorised head, as it is exported.

    The head's first layer splits by columns, W1 = [Wq | We], so that

        delta[b, m] = W2 · ReLU(Wq·f(q_b) + (We·f(e_m) + b1)) + b2

    where the term in brackets is `exemplar_hidden[m]`, computed once per exemplar. The sum over channels is
    taken slice by slice: where M is large, the product [B, C, M] never exists, so M may be thousands.

    Args:
        trunk: maps float [N, 3, P, P] to [N, C].
        checkpoint: the regressor's weights.
        patches: D, patches per image.
        trunk_dtype: type of the trunk's weights and activations; all else is float32.
        exemplars: M that the slices are sized for; any other M works, too. None: slices that need the least memory.
    """

    def __init__(
        self,
        trunk: nn.Module,
        checkpoint: Checkpoint,
        patches: int,
        trunk_dtype: torch.dtype = torch.float32,
        *,
        exemplars: int | None = None,
    ) -> None:
        super().__init__()
        C = checkpoint.backbone.feature_size
        self.trunk = trunk
        self.patches = patches
        self.feature_size = C
        self.trunk_dtype = trunk_dtype
        mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float().view(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).float().view(1, 3, 1, 1))
        self.register_buffer("query_weight", checkpoint.fc1_weight[:, :C].T.contiguous())  # Wq, transposed
        self.register_buffer("delta_bias", checkpoint.fc2_bias.clone())
        self.slice_channels = slice_channels(C, exemplars)
        slices = torch.split(checkpoint.fc2_weight.reshape(1, 1, C), self.slice_channels, dim=2)
        for index, weight in enumerate(slices):
            self.register_buffer(f"delta_weight_{index}", weight.clone())
        self.slices = len(slices)

    def forward(
        self, patches: Tensor, exemplar_hidden: Tensor, exemplar_labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score B images.

        Args:
            patches: uint8 [B·D, P, P, 3].
            exemplar_hidden: float32 [M, C].
            exemplar_labels: float32 [M].

        Returns:
            score float32 [B], exemplar_scores float32 [B, M], features float32 [B, C].
        """
        features = self.features(patches)
        return (*self.compare(features, exemplar_hidden, exemplar_labels), features)

    def compare(self, features: Tensor, exemplar_hidden: Tensor, exemplar_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compare B images with M exemplars by their features, float32 [B, C].

        Returns:
            score float32 [B], exemplar_scores float32 [B, M].
        """
        # Queries [B, C, 1] and exemplars [C, M], so that the innermost axis is the long one, M.
        query = (features @ self.get_buffer("query_weight")).unsqueeze(2)
        query_slices: tuple[Tensor, ...] = (query,)
        exemplar_slices: tuple[Tensor, ...] = (exemplar_hidden.T,)
        if self.slices > 1:
            query_slices = torch.split(query, self.slice_channels, dim=1)
            exemplar_slices = torch.split(exemplar_hidden.T, self.slice_channels, dim=0)
        delta: Tensor | None = None
        for index in range(self.slices):
            hidden = torch.relu(query_slices[index] + exemplar_slices[index])
            part = torch.matmul(self.get_buffer(f"delta_weight_{index}"), hidden).squeeze(1)
            delta = part if delta is None else delta + part
        assert delta is not None
        exemplar_scores = exemplar_labels + (delta + self.get_buffer("delta_bias"))
        return exemplar_scores.mean(dim=1), exemplar_scores

    def features(self, patches: Tensor) -> Tensor:
        """Compute the features of B images, float32 [B, C]: those of each image's patches, averaged."""
        return self.patch_features(patches).reshape(-1, self.patches, self.feature_size).mean(dim=1)

    def patch_features(self, patches: Tensor) -> Tensor:
        """Compute the trunk's output for N patches, float32 [N, C]."""
        # The cast comes first: TensorRT takes uint8 as an input only, and nothing but a cast may read it.
        x = patches.float().permute(0, 3, 1, 2)
        x = x * self.get_buffer("scale") + self.get_buffer("shift")
        out: Tensor = self.trunk(x.to(self.trunk_dtype)).float()
        return out


def reference_scores(checkpoint: Checkpoint, queries: Tensor, exemplars: Tensor, labels: Tensor) -> Tensor:
    """Score by the method's own formula, each pair concatenated; parity is measured against these scores.

    Args:
        checkpoint: the regressor's weights.
        queries: f(q), float32 [N, C].
        exemplars: f(e), float32 [M, C].
        labels: float32 [M].

    Returns:
        float32 [N], the mean over exemplars of label + delta.
    """
    scores = []
    for query in queries:
        pairs = torch.cat([query.expand_as(exemplars), exemplars], dim=1)
        hidden = torch.relu(nn.functional.linear(pairs, checkpoint.fc1_weight, checkpoint.fc1_bias))
        delta = nn.functional.linear(hidden, checkpoint.fc2_weight, checkpoint.fc2_bias)[:, 0]
        scores.append((labels + delta).mean())
    return torch.stack(scores)


def exemplar_hidden(checkpoint: Checkpoint, features: Tensor) -> Tensor:
    """Compute We·f(e) + b1 of each exemplar, float32 [M, C], from its features, float32 [M, C]."""
    C = checkpoint.backbone.feature_size
    weight, bias = checkpoint.fc1_weight[:, C:].double(), checkpoint.fc1_bias.double()
    return (features.double() @ weight.T + bias).float()
