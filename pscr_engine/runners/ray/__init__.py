"""Scoring on a Ray cluster: whole manifests with `run`, batches of a Ray Data pipeline with `ScoreBatch`."""

from .runner import run
from .score_batch import ScoreBatch

__all__ = ["ScoreBatch", "run"]
