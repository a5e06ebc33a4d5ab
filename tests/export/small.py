"""Checkpoints that are small enough to export in a moment."""

from __future__ import annotations

from pathlib import Path

import torch
from pscr_export.backbones import Backbone
from pscr_export.checkpoint import Checkpoint
from torch import nn


def small_checkpoint(C: int, trunk: nn.Module | None = None) -> Checkpoint:
    """Make a checkpoint with a trunk of two layers, or with the given trunk."""
    torch.manual_seed(C)
    trunk = trunk or nn.Sequential(nn.Conv2d(3, C, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    spec = Backbone("small", C, 8, lambda: trunk, "0.weight")
    return Checkpoint(
        Path("small.pt"),
        "0" * 64,
        spec,
        trunk.eval(),
        torch.randn(C, 2 * C) / C**0.5,
        torch.randn(C),
        torch.randn(1, C) / C**0.5,
        torch.randn(1),
        epoch=None,
        rho_best=None,
    )
