"""Counts that add up over parts: a histogram, a density of two columns, and scores above each threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .axis import Axis


@dataclass(slots=True)
class Histogram:
    """Counts along an axis.

    Args:
        axis: the axis; values beyond it count in its first and last bin.
    """

    axis: Axis
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.axis.bins, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values."""
        self.counts += np.bincount(self.axis.places(values), minlength=self.axis.bins)


@dataclass(slots=True)
class Density:
    """Counts of pairs on a grid.

    Args:
        x, y: the axes; pairs beyond them count in the nearest cell.
        beyond: how many pairs those are.
    """

    x: Axis
    y: Axis
    beyond: int = 0
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.y.bins, self.x.bins), np.int64)

    def add(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
        """Count pairs."""
        cells = self.y.places(y) * self.x.bins + self.x.places(x)
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)
        inside = (x >= float(self.x.low)) & (x <= float(self.x.high))
        inside &= (y >= float(self.y.low)) & (y <= float(self.y.high))
        self.beyond += int(len(x) - inside.sum())


@dataclass(slots=True)
class Thresholds:
    """Exact counts of the values that are at least as large as each of some thresholds.

    Args:
        texts: the thresholds as decimals, ascending as float32.
    """

    texts: list[str]
    _values: NDArray[np.float32] = field(init=False)
    _counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._values = np.array(self.texts, np.float32)
        self._counts = np.zeros(len(self.texts) + 1, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values."""
        reached = np.searchsorted(self._values, values, side="right")  # how many thresholds each value reaches
        self._counts += np.bincount(reached, minlength=len(self._counts))

    def kept(self) -> list[int]:
        """Return, for each threshold, how many values are at least as large."""
        return [int(count) for count in np.cumsum(self._counts[::-1])[::-1][1:]]
