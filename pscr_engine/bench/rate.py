"""Measure rates: work is repeated until enough time has passed, in rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np


class Rate(NamedTuple):
    """Items per second: the lowest, the middle and the highest of the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, rates: Sequence[float]) -> Rate:
        """Summarise the rates of the rounds."""
        return cls(min(rates), float(np.median(rates)), max(rates))

    def as_json(self) -> dict[str, float]:
        """Round the rates to four digits, for the record."""
        return {name: float(f"{value:.4g}") for name, value in self._asdict().items()}


def measure(work: Callable[[], int], seconds: float, rounds: int) -> Rate:
    """Measure how many items per second `work` does.

    Args:
        work: does some of it and returns how many items that were; it is called once before the clock starts.
        seconds: a round takes at least so long.
        rounds: how many.
    """
    work()
    return Rate.of([_round(work, seconds) for _ in range(rounds)])


def _round(work: Callable[[], int], seconds: float) -> float:
    items, start = 0, perf_counter()
    while (taken := perf_counter() - start) < seconds or not items:
        items += work()
    return items / taken
