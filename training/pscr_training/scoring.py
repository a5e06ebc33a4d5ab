"""Scores of a model that is being trained, or of a checkpoint, by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pscr_engine.records import Pixels
from pscr_engine.sampling import Sampling

from .data.labelled import Item
from .data.patches import patches_as_scored
from .method import Model
from .metrics import Floats

_BATCH = 16
_QUERIES = 16


class _AsScored(Dataset[Pixels]):
    def __init__(self, items: Sequence[Item], sampling: Sampling) -> None:
        self._items, self._sampling = items, sampling

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Pixels:
        return patches_as_scored(self._items[index], self._sampling)


@torch.inference_mode()
def encode(
    model: Model,
    items: Sequence[Item],
    sampling: Sampling,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """F of each image, float32 [N, C], with the model in evaluation mode.

    Raises:
        DatasetError: an image can't be read.
    """
    return encode_patches(model, items, sampling, workers, progress).mean(1)


@torch.inference_mode()
def encode_patches(
    model: Model,
    items: Sequence[Item],
    sampling: Sampling,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    amp: bool = False,
) -> Tensor:
    """Features of each patch of each image, float32 [N, D, C], with the model in evaluation mode.

    Args:
        model: its trunk.
        items: the images.
        sampling: how patches are taken.
        workers: processes that read images; 0 for none.
        progress: called with the images done and their number.
        amp: whether to compute in BF16, on a CPU.

    Raises:
        DatasetError: an image can't be read.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        features, done = [], 0
        for patches in DataLoader(_AsScored(items, sampling), batch_size=_BATCH, num_workers=workers):
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                found = model.patch_features(patches.to(device))
            features.append(found.float())
            done += len(patches)
            progress(done, len(items))
        return torch.cat(features)
    finally:
        model.train(training)


@torch.inference_mode()
def scores(model: Model, features: Tensor, exemplars: Tensor, labels: Tensor) -> Floats:
    """Mean over exemplars of label + difference, float64 [N].

    Args:
        model: of the method "contrastive".
        features: float32 [N, C].
        exemplars: float32 [M, C].
        labels: float [M].
    """
    fc1, fc2 = model.fc1, model.fc2
    C = features.shape[1]
    mine = features @ fc1.weight[:, :C].T
    theirs = exemplars @ fc1.weight[:, C:].T + fc1.bias
    out = []
    for some in torch.split(mine, _QUERIES):
        delta = fc2(torch.relu(some[:, None] + theirs[None])).squeeze(2)
        out.append((labels.to(delta) + delta).mean(1))
    return torch.cat(out).double().cpu().numpy()


@torch.inference_mode()
def direct_scores(model: Model, features: Tensor) -> Floats:
    """Of the no-reference baseline, float64 [N]."""
    return model.regress(features).double().cpu().numpy()


def labels_of(items: Sequence[Item]) -> Floats:
    """Float64 [N]."""
    return np.array([item.mos for item in items], np.float64)
