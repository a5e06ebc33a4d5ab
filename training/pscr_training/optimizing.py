"""Decides which parameters are trained, by which optimiser, and at which learning rate in each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from pscr_engine.errors import UsageError, option

from .config import FREEZE_ALL, TrainConfig


class Trained(Protocol):
    """What is needed of a model here: its trunk and its regressor."""

    trunk: nn.Module
    regressor: nn.ModuleDict


def freeze(trunk: nn.Module, names: Sequence[str]) -> None:
    """Exclude modules of a trunk from training.

    Args:
        trunk: the network.
        names: names of its modules, "layer1" or "blocks.0" for example; ("all",) for the whole trunk.

    Raises:
        UsageError: the trunk has no such module.
    """
    if tuple(names) == FREEZE_ALL:
        trunk.requires_grad_(False)
        return
    for name in names:
        try:
            trunk.get_submodule(name).requires_grad_(False)
        except AttributeError:
            known = ", ".join(child for child, _ in trunk.named_children())
            raise UsageError(
                f"{option('--freeze')} {name}: the trunk has no such module; name some of {known}, or all"
            ) from None


def make_optimizer(settings: TrainConfig, model: Trained) -> torch.optim.Optimizer:
    """Make the optimiser of all parameters that are trained, with a rate of its own for the head if that is set."""
    trunk = [parameter for parameter in model.trunk.parameters() if parameter.requires_grad]
    head = list(model.regressor.parameters())
    groups = [{"params": [*trunk, *head], "lr": settings.learning_rate}]
    if settings.head_learning_rate is not None:
        groups = [{"params": head, "lr": settings.head_learning_rate}]
        if trunk:
            groups.insert(0, {"params": trunk, "lr": settings.learning_rate})
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, weight_decay=settings.weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, settings: TrainConfig, epochs_done: float) -> None:
    """Set each group's learning rate for the next step.

    It follows from the settings and the time alone, so that a resumed training goes on as it would have.

    Args:
        optimizer: from `make_optimizer`.
        settings: the training's settings.
        epochs_done: number of epochs that are done, with a fraction.
    """
    base = [settings.learning_rate, settings.head_learning_rate or settings.learning_rate]
    factor = rate_factor(settings, epochs_done)
    for group, rate in zip(optimizer.param_groups, base[-len(optimizer.param_groups) :], strict=True):
        group["lr"] = rate * factor


def rate_factor(settings: TrainConfig, epochs_done: float) -> float:
    """Return the share of the full learning rate: linear in the warm-up, then constant or half a cosine down to 0."""
    warmup = settings.warmup_epochs
    if epochs_done < warmup:
        return (epochs_done + 1e-3) / (warmup + 1e-3)
    if settings.schedule == "constant":
        return 1.0
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (epochs_done - warmup) / (settings.epochs - warmup)))
