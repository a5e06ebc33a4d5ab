"""The choice of images to show: the few with the largest measure, in memory that doesn't grow with the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pick:
    """An image to show.

    Args:
        row: its row.
        score, score_std: its score, and the standard deviation over exemplars.
    """

    row: int
    score: float
    score_std: float


class Leaders:
    """The rows with the largest measure so far; of equal measures, the smaller rows.

    Args:
        count: how many rows to keep.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._measure: NDArray[np.floating] = np.zeros(0)
        self._rows = np.zeros(0, np.int64)
        self._values = np.zeros((0, 2), np.float32)

    def add(self, measure: NDArray[np.floating], rows: NDArray[np.int64], *values: NDArray[np.float32]) -> None:
        """Take in more rows, ascending over all calls, with their measure and two values each, all of shape [N]."""
        if len(self._rows) == self._count:
            if not self._count:
                return
            better = measure > self._measure[-1]  # an equal one has a larger row
            measure, rows, values = measure[better], rows[better], tuple(value[better] for value in values)
        if len(rows) > self._count:
            # All rows with a measure equal to the cut stay here; the sort below drops the larger rows among them.
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
        """Return row and two values of each leader, best first, without those whose measure is minus infinity."""
        rows = self._rows[self._measure > -np.inf].tolist()
        return [(row, float(a), float(b)) for row, (a, b) in zip(rows, self._values[: len(rows)], strict=True)]

    def picks(self) -> list[Pick]:
        """Return the leaders, best first, as images to show; their two values must be score and score_std."""
        return [Pick(*leader) for leader in self.found()]
