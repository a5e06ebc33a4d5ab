"""How each model is trained: `python -m benchmarks.agiqa3k train NAME` runs one, or goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pscr_training.config import TrainConfig
from pscr_training.data.open import Source

# What two cores train in half an hour; chosen beforehand, no other settings were tried. The first two stages, which
# take about half of a step's time, keep their ImageNet weights, and all batch norms their statistics.
_LITE0: dict[str, Any] = {
    "backbone": "timm:tf_efficientnet_lite0",
    "pairs": "all",
    "freeze": ("conv_stem", "bn1", "blocks.0", "blocks.1"),
    "freeze_batch_norms": True,
    "train_patches": 3,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "head_learning_rate": 6e-4,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "average": 0.99,
    "epochs": 8,
}
# The trunk stays as ImageNet left it: every image is encoded once (four patches, where nine would take two cores an
# hour), and the head alone is trained.
_VGG16_HEAD: dict[str, Any] = {
    "backbone": "vgg16",
    "pairs": "all",
    "sampling": "nops",
    "freeze": ("all",),
    "train_patches": 3,
    "amp": True,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "epochs": 30,
}
RECIPES: dict[str, dict[str, Any]] = {
    "lite0": {**_LITE0, "split": "prompt-disjoint"},
    "lite0-no-reference": {**_LITE0, "split": "prompt-disjoint", "method": "no-reference"},
    "lite0-random": {**_LITE0, "split": "random"},
    "lite0-random-no-reference": {**_LITE0, "split": "random", "method": "no-reference"},
    "vgg16-head": {**_VGG16_HEAD, "split": "prompt-disjoint"},
}
SHIPPED = "lite0"


class Place(NamedTuple):
    """Where the images are, and where trainings are kept.

    Args:
        data: folder of AGIQA-3K.
        work: folder with one training per recipe.
    """

    data: Path
    work: Path

    def source(self) -> Source:
        """Return the database."""
        return Source("agiqa-3k", str(self.data))

    def training(self, name: str) -> Path:
        """Return the folder of a training."""
        return self.work / name


def config(name: str, place: Place, weights: str) -> TrainConfig:
    """Return the settings of a training.

    Args:
        name: the recipe's name.
        place: where the images are, and where the training is kept.
        weights: file of the trunk's ImageNet weights, or "imagenet" to download them.
    """
    return TrainConfig(place.source(), out=place.training(name), weights=weights, **RECIPES[name])
