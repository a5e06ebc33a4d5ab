"""Writes and reads checkpoints in the PSCR authors' format, with a training record under a key of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pscr_export.checkpoint import load_content, record_of
from pscr_export.record import KEY, TrainingRecord
from pscr_export.timm_backbone import find_backbone
from torch import Tensor

from pscr_engine.atomic import atomic_file
from pscr_engine.errors import CheckpointError, option

from .method import Model

TRAINED = "pscr_engine_trained"
"""Key of the weights that training goes on with, where the weights to score with are an average of them."""

# Layers that the authors' networks have and never compute with: their code refuses checkpoints without them.
_UNUSED_LAYERS: dict[str, dict[str, tuple[int, ...]]] = {
    **{
        name: {
            "classifier.0.weight": (4096, 25088),
            "classifier.0.bias": (4096,),
            "classifier.3.weight": (4096, 4096),
            "classifier.3.bias": (4096,),
            "classifier.6.weight": (1000, 4096),
            "classifier.6.bias": (1000,),
        }
        for name in ("vgg16", "vgg19")
    },
    "inceptionv4": {"last_linear.weight": (1000, 1536), "last_linear.bias": (1000,)},
    "vit": {
        "vit.norm.weight": (1024,),
        "vit.norm.bias": (1024,),
        "vit.head.weight": (1000, 1024),
        "vit.head.bias": (1000,),
    },
    "swin": {"model.head.fc.weight": (1000, 1024), "model.head.fc.bias": (1000,)},
}


def save_checkpoint(
    path: Path,
    model: Model,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    record: TrainingRecord,
    scaler: Any = None,
    trained: Model | None = None,
) -> None:
    """Write a checkpoint; the file appears whole or not at all.

    Args:
        path: the file.
        model: the model to score with.
        optimizer: the optimiser, whose state is kept.
        epoch: the last epoch that is done, from 0.
        record: the training record.
        scaler: the gradient scaler of mixed precision, or None.
        trained: the model that training goes on with, where `model` is an average of its weights; else None.
    """
    trunk: dict[str, Tensor] = {key: value.detach().cpu() for key, value in model.trunk.state_dict().items()}
    for key, shape in _UNUSED_LAYERS.get(model.backbone.name, {}).items():
        trunk[key] = torch.zeros(1).expand(shape)  # stored as one number
    content = {
        "epoch": epoch,
        "backbone": trunk,
        "regressor": {key: value.detach().cpu() for key, value in model.regressor.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "rho_best": np.float64(record.best if record.best is not None else 0.0),
        KEY: record.as_dict(),
    }
    if scaler is not None:
        content["scaler"] = scaler.state_dict()
    if trained is not None:
        content[TRAINED] = {"backbone": trained.trunk.state_dict(), "regressor": trained.regressor.state_dict()}
    with atomic_file(path) as file:
        torch.save(content, file)


def load_model(path: Path) -> tuple[Model, TrainingRecord, dict[str, Any]]:
    """Load a checkpoint of pscr-engine: the model, in training mode, its record, and the file's whole content.

    Raises:
        CheckpointError: there is none, it is damaged, or pscr-engine did not train it.
    """
    content = dict(load_content(path))
    record = record_of(path, content)
    if record is None:
        raise CheckpointError(
            f"{path}: was not trained by pscr-engine; export it with {option('--exemplars')}, and evaluate the bundle"
        )
    backbone = find_backbone(str(record.settings["backbone"]))
    model = Model(backbone, record.method)
    wanted = model.trunk.state_dict()
    try:
        model.trunk.load_state_dict({key: content["backbone"][key] for key in wanted})
        model.regressor.load_state_dict(content["regressor"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its weights are not those of {backbone.name} ({str(error)[:100]})") from error
    return model, record, content
