"""The table of scores by group: a line for each of the largest groups, and one for all others together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..output.run_groups import Groups
from ..statistics.order_statistics import OrderStatistics

SHOWN = 24
MOST_GROUPS = 100_000
_SHARES = (5, 25, 50, 75, 95)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group, or all smaller groups together.

    Args:
        label: the group's value in the manifest's column.
        rows: how many rows.
        scored: how many of them have a score.
        mean: mean of their scores; None if there are none.
        quantiles: 5%, 25%, 50%, 75%, 95% of their scores; empty if there are none.
    """

    label: str
    rows: int
    scored: int
    mean: float | None
    quantiles: list[float]


def _ranks(count: int) -> list[int]:
    return [share * (count - 1) // 100 for share in _SHARES]


class GroupTable:
    """Counters for the lines of the table, filled over several passes.

    Args:
        groups: which group each row is in.
    """

    def __init__(self, groups: Groups) -> None:
        order = np.argsort(-groups.sizes, kind="stable")
        largest = order[:SHOWN]
        self._line = np.full(len(groups), len(largest), np.int32)
        self._line[largest] = np.arange(len(largest))
        self._labels = [groups.labels[group] for group in largest.tolist()]
        self._rows = groups.sizes[largest].tolist()
        if rest := len(groups) - len(largest):
            self._labels.append(f"{rest:,} smaller group{'s' if rest > 1 else ''} together")
            self._rows.append(int(groups.sizes[order[SHOWN:]].sum()))
        lines = len(self._labels)
        self._sums = np.zeros(lines)
        self._statistics = OrderStatistics(_ranks, max(1, lines))

    def wants_pass(self) -> bool:
        """Tell whether another pass is needed; also end the last one and prepare the next."""
        return self._statistics.wants_pass()

    def add(self, scores: NDArray[np.float32], groups: NDArray[np.int32], *, first: bool) -> None:
        """Count the scores of rows, float32 [N], by their groups, int32 [N]; in the first pass, sum them up, too."""
        lines = self._line[groups]
        self._statistics.add(scores, lines)
        if first:
            self._sums += np.bincount(lines, scores.astype(np.float64), minlength=len(self._sums))

    def lines(self) -> list[GroupRow]:
        """Return the lines of the table: the largest group first, all smaller ones together last."""
        table = []
        for line, (label, rows) in enumerate(zip(self._labels, self._rows, strict=True)):
            scored = int(self._statistics.sizes[line])
            mean = float(self._sums[line]) / scored if scored else None
            quantiles = [float(each.value) for each in self._statistics.of(line)]
            table.append(GroupRow(label, rows, scored, mean, quantiles))
        return table
