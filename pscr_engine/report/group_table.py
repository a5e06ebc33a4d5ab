"""Scores by group: a line for each of the largest groups, and one for the rest."""

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
        label: the column's value.
        rows: how many rows.
        scored: those with a score.
        mean: of their scores; None if there are none.
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
    """Counts scores by group.

    Args:
        groups: which group each row is in.
    """

    def __init__(self, groups: Groups) -> None:
        order = np.argsort(-groups.sizes, kind="stable")
        shown = order[:SHOWN]
        self._line = np.full(len(groups), len(shown), np.int32)
        self._line[shown] = np.arange(len(shown))
        self._labels = [groups.labels[group] for group in shown.tolist()]
        self._rows = groups.sizes[shown].tolist()
        if rest := len(groups) - len(shown):
            self._labels.append(f"{rest:,} smaller group{'s' if rest > 1 else ''} together")
            self._rows.append(int(groups.sizes[order[SHOWN:]].sum()))
        lines = len(self._labels)
        self._sums = np.zeros(lines)
        self._statistics = OrderStatistics(_ranks, max(1, lines))

    def wants_pass(self) -> bool:
        """See `OrderStatistics.wants_pass`."""
        return self._statistics.wants_pass()

    def add(self, scores: NDArray[np.float32], groups: NDArray[np.int32], *, first: bool) -> None:
        """Count the scores of some rows; in the first pass, add them up, too."""
        lines = self._line[groups]
        self._statistics.add(scores, lines)
        if first:
            self._sums += np.bincount(lines, scores.astype(np.float64), minlength=len(self._sums))

    def lines(self) -> list[GroupRow]:
        """The largest group first, the rest last."""
        found = []
        for line, (label, rows) in enumerate(zip(self._labels, self._rows, strict=True)):
            scored = int(self._statistics.sizes[line])
            mean = float(self._sums[line]) / scored if scored else None
            quantiles = [float(each.value) for each in self._statistics.of(line)]
            found.append(GroupRow(label, rows, scored, mean, quantiles))
        return found
