"""Inference backends: each turns encoded images into scores on its device."""

from ..stages.infer import BatchScores
from .base import Backend
from .registry import create_backend

__all__ = ["Backend", "BatchScores", "create_backend"]
