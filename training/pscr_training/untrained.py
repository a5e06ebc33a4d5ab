"""Checkpoints with random weights, for demonstrations, tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

import torch
from pscr_export.timm_backbone import find_backbone
from torch import nn


def write_untrained_checkpoint(path: Path, backbone: str = "resnet18", seed: int = 0) -> None:
    """Write a checkpoint of the authors' format with random weights, determined by `seed`."""
    torch.manual_seed(seed)
    spec = find_backbone(backbone)
    C = spec.feature_size
    regressor = nn.ModuleDict({"fc1": nn.Linear(2 * C, C), "fc2": nn.Linear(C, 1)})
    torch.save({"epoch": 0, "backbone": spec.build().state_dict(), "regressor": regressor.state_dict()}, path)
