"""Inference backends: they turn a batch of patches into scores."""

from ..stages.infer import Backend, BatchScores
from .registry import create_backend

__all__ = ["Backend", "BatchScores", "create_backend"]
