"""Which images to show: the first few by some measure, in memory for a few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pick:
    """An image to show.

    Args:
        row: its row.
        score, score_std: its score.
    """

    row: int
    score: float
    score_std: float


class Leaders:
    """The rows with the largest measure seen so far; of equal ones, the smaller rows.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._measure: NDArray[np.floating] = np.zeros(0)
        self._rows = np.zeros(0, np.int64)
        self._values = np.zeros((0, 2), np.float32)

    def add(self, measure: NDArray[np.floating], rows: NDArray[np.int64], *values: NDArray[np.float32]) -> None:
        """See more rows, in ascending order, with their measure and two values each."""
        if len(self._rows) == self._count:
            if not self._count:
                return
            better = measure > self._measure[-1]  # an equal one has a larger row
            measure, rows, values = measure[better], rows[better], tuple(value[better] for value in values)
        if len(rows) > self._count:
            # Ties at the cut are all kept here, and cut by row below.
            cut = np.partition(measure, len(measure) - self._count)[len(measure) - self._count]
            enough = measure >= cut
            measure, rows, values = measure[enough], rows[enough], tuple(value[enough] for value in values)
        if not len(rows):
            return
        measure = np.concatenate([self._measure, measure])
        rows = np.concatenate([self._rows, rows])
        stacked = np.concatenate([self._values, np.stack(values, axis=1)])
        order = np.lexsort((rows, -measure))[: self._count]
        self._measure, self._rows, self._values = measure[order], rows[order], stacked[order]

    def found(self) -> list[tuple[int, float, float]]:
        """Row and values, best first. A measure of minus infinity takes no part."""
        rows = self._rows[self._measure > -np.inf].tolist()
        return [(row, float(a), float(b)) for row, (a, b) in zip(rows, self._values[: len(rows)], strict=True)]

    def picks(self) -> list[Pick]:
        """The same, where the values are score and score_std."""
        return [Pick(*found) for found in self.found()]
