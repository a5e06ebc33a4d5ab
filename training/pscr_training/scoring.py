"""Scores images with PyTorch, by a model that is being trained or that of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pscr_engine.progress import Progress, silent
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
    progress: Progress = silent,
    step: str = "encode images",
) -> Tensor:
    """Compute the features of each image, float32 [N, C], with the model in evaluation mode.

    Raises:
        DatasetError: an image can't be read.
    """
    return encode_patches(model, items, sampling, workers, progress, step).mean(1)


@torch.inference_mode()
def encode_patches(
    model: Model,
    items: Sequence[Item],
    sampling: Sampling,
    workers: int = 0,
    progress: Progress = silent,
    step: str = "encode images",
    amp: bool = False,
) -> Tensor:
    """Compute the features of each patch of each image, float32 [N, D, C], with the model in evaluation mode.

    Args:
        model: the model whose trunk is used.
        items: the images.
        sampling: how patches are taken.
        workers: processes that read images; 0 for none.
        progress: called with the images done and their number.
        step: what `progress` is told.
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
                encoded = model.patch_features(patches.to(device))
            features.append(encoded.float())
            done += len(patches)
            progress(step, done, len(items))
        return torch.cat(features)
    finally:
        model.train(training)


@torch.inference_mode()
def scores(model: Model, features: Tensor, exemplars: Tensor, labels: Tensor) -> Floats:
    """Score images: the mean over exemplars of label + difference, float64 [N].

    Args:
        model: a model of the method "contrastive".
        features: float32 [N, C], the images'.
        exemplars: float32 [M, C], the exemplars' features.
        labels: float [M], the exemplars'.
    """
    fc1, fc2 = model.fc1, model.fc2
    C = features.shape[1]
    query_hidden = features @ fc1.weight[:, :C].T
    exemplar_hidden = exemplars @ fc1.weight[:, C:].T + fc1.bias
    out = []
    for queries in torch.split(query_hidden, _QUERIES):
        delta = fc2(torch.relu(queries[:, None] + exemplar_hidden[None])).squeeze(2)
        out.append((labels.to(delta) + delta).mean(1))
    return torch.cat(out).double().cpu().numpy()


@torch.inference_mode()
def direct_scores(model: Model, features: Tensor) -> Floats:
    """Score images by the no-reference baseline, float64 [N], from their features, float32 [N, C]."""
    return model.regress(features).double().cpu().numpy()


def labels_of(items: Sequence[Item]) -> Floats:
    """Return the labels of images, float64 [N]."""
    return np.array([item.mos for item in items], np.float64)
