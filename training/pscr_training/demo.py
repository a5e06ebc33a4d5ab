"""The steps of `pscr-engine demo --train` that need PyTorch: train and export a small model."""

from __future__ import annotations

from pathlib import Path

from pscr_export.export import ExportConfig, export_bundle

from pscr_engine.cli import logs
from pscr_engine.cli.step_progress import progress

from .config import TrainConfig
from .data.open import Source
from .train import train

# A model that learns something in two minutes on two cores; `train` has the defaults for a real one.
_PATCH_SIZE, _BATCH_SIZE, _LEARNING_RATE = 48, 16, 5e-4


def train_model(out: Path, *, images: int, epochs: int, seed: int) -> Path:
    """Train a ResNet-18 from random weights on made-up images, and export it.

    Args:
        out: folder for the images, the training and the bundle.
        images: how many to train on.
        epochs: how often the model sees each of them.
        seed: seed of the images and of the weights.

    Returns:
        The bundle's folder.
    """
    source = Source("synthetic", str(out / "labelled"), images=images, seed=seed)
    config = TrainConfig(
        source,
        out=out / "training",
        weights="none",
        pairs="all",
        patch_size=_PATCH_SIZE,
        epochs=epochs,
        batch_size=_BATCH_SIZE,
        learning_rate=_LEARNING_RATE,
        seed=seed,
    )
    logs.result(f"1. make {images} labelled images in {out}/labelled/")
    source.open()
    logs.result(f"2. pscr-engine train --dataset synthetic --data {out}/labelled --out {out}/training ...")
    with progress("images") as report:
        trained = train(config, report)
    logs.result(f"3. pscr-engine export --ckpt {trained.best} --out {out}/model.pscr")
    with progress("images") as report:
        return export_bundle(ExportConfig(trained.best, out=out / "model.pscr"), report).path
