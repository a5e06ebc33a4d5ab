"""The numbers and images that the page shows of a run, gathered in three passes over its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..output.run_groups import Groups, with_groups
from ..output.run_reader import RunReader
from ..output.score_columns import ScoreColumns
from ..statistics.float_order import shortest
from ..statistics.order_statistics import OrderStatistics, Statistic
from .axis import Axis
from .counts import Density, Histogram, Thresholds
from .failures import Failures
from .galleries import Leaders, Pick
from .group_table import GroupRow, GroupTable

# The axes leave out so many thousandths of the images at each end: one outlier would squash the rest.
_TAIL = 1
_BINS, _CELLS_X, _CELLS_Y = 60, 90, 54
STEPS = 500
"""How many steps the slider has at most; fewer if that makes its thresholds round numbers."""

_LADDER = (0, 10, 25, 50, 75, 90, 100)
# Below this many images, bins are wider: else most would hold one image or none.
_MANY = 5000


@dataclass(frozen=True, slots=True)
class Shape:
    """The distribution of a run's scores, with images for it.

    Args:
        quantiles: at 0, 0.1%, … 100%; each is the score of an image, none is interpolated.
        mean, deviation: mean and standard deviation of the scores.
        histogram: counts of the scores.
        density: counts of score (x) and score_std (y).
        thresholds: decimals, ascending, each with the number of images that have at least that score.
        galleries: best, worst, median, uncertain → the images to show.
        ladder: share in percent → the image nearest to that quantile.
    """

    quantiles: list[Statistic]
    mean: float
    deviation: float
    histogram: Histogram
    density: Density
    thresholds: list[tuple[str, int]]
    galleries: dict[str, list[Pick]]
    ladder: dict[int, Pick]


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that was gathered from a run's rows.

    Args:
        failures: counts by status and reason.
        shape: the distribution of the scores; None if no image has one.
        groups: one line per group; empty unless asked for.
    """

    failures: Failures
    shape: Shape | None
    groups: list[GroupRow]

    @property
    def rows(self) -> int:
        """Return how many rows the parts have."""
        return self.failures.status.total()

    @property
    def scored(self) -> int:
        """Return how many rows have a score."""
        return self.rows - self.failures.total


def gather(run: RunReader, images: int, groups: Groups | None = None, score: ScoreColumns | None = None) -> Gathered:
    """Read a run's parts in three passes, and gather what the page shows of them.

    Only counters are kept between passes. The first pass counts failures and the leading bits of all
    scores, the second finds the quantiles exactly, the third counts along axes that fit them, and finds the
    images nearest to some of them.

    Args:
        run: the run.
        images: how many to show per gallery.
        groups: which group each row is in; None for no groups.
        score: which of the run's scores; None for the only one.

    Raises:
        OutputError: a part can't be read.
    """
    score = score or run.score()
    numbers = ("row", score.score, score.std)
    failures, totals = Failures(), _Totals()
    scores = OrderStatistics(lambda count: [_rank(count, share) for share in range(1001)])
    deviations = OrderStatistics(lambda count: [_rank(count, share) for share in (_TAIL, 1000 - _TAIL)])
    table = None if groups is None else GroupTable(groups)
    best, worst, uncertain = Leaders(images), Leaders(images), Leaders(images)
    first = True
    statistics: list[OrderStatistics | GroupTable] = [scores, deviations, *([] if table is None else [table])]
    while True in [each.wants_pass() for each in statistics]:  # not any(): the call prepares each of them for the pass
        for batch, of_rows in with_groups(run, groups, *numbers, *(_TEXTS if first else ())):
            scored = _scored(batch, numbers)
            scores.add(scored.score)
            deviations.add(scored.std)
            if table is not None and of_rows is not None:
                table.add(scored.score, of_rows[scored.positions], first=first)
            if first:
                failures.add(batch)
                totals.add(scored.score)
                best.add(scored.score, scored.row, scored.score, scored.std)
                worst.add(-scored.score, scored.row, scored.score, scored.std)
                uncertain.add(scored.std, scored.row, scored.score, scored.std)
        first = False
    galleries = {"best": best.picks(), "worst": worst.picks(), "uncertain": uncertain.picks()}
    shape = _shape(run, images, scores.of(), deviations.of(), totals, galleries, numbers) if totals.count else None
    return Gathered(failures, shape, table.lines() if table is not None else [])


def _shape(
    run: RunReader,
    images: int,
    quantiles: list[Statistic],
    deviations: list[Statistic],
    totals: _Totals,
    galleries: dict[str, list[Pick]],
    numbers: Sequence[str],
) -> Shape:
    """Make the third pass: count along axes that fit the quantiles, and find the images nearest to some of these."""
    low, high = (float(quantiles[share].value) for share in (_TAIL, 1000 - _TAIL))
    fineness = min(1.0, (totals.count / _MANY) ** (1 / 3))
    axis = Axis.around(low, high, max(12, int(_BINS * fineness)))
    histogram, thresholds = Histogram(axis), Thresholds(axis.steps(STEPS))
    near = {percent: Leaders(images if percent == 50 else min(images, 1)) for percent in _LADDER}
    spread = (float(deviations[0].value), float(deviations[1].value))
    coarser = max(0.5, fineness)
    density = Density(Axis.around(low, high, int(_CELLS_X * coarser)), Axis.around(*spread, int(_CELLS_Y * coarser)))
    for batch in run.batches(*numbers):
        scored = _scored(batch, numbers)
        histogram.add(scored.score)
        density.add(scored.score, scored.std)
        thresholds.add(scored.score)
        for percent, leaders in near.items():
            distance = np.abs(scored.score - quantiles[10 * percent].value)
            leaders.add(-distance, scored.row, scored.score, scored.std)
    kept = dict(zip(thresholds.texts, thresholds.kept(), strict=True))
    kept |= {shortest(each.value): totals.count - each.below for each in quantiles}
    ascending = sorted(kept.items(), key=lambda pair: np.float32(pair[0]))
    galleries = {**galleries, "median": near[50].picks()}
    ladder = {percent: leaders.picks()[0] for percent, leaders in near.items() if images}
    return Shape(quantiles, totals.mean, totals.deviation, histogram, density, ascending, galleries, ladder)


class _Totals:
    """Mean and standard deviation in one pass, of differences from the first value: a large mean costs no digits."""

    def __init__(self) -> None:
        self.count, self._around, self._sum, self._squares = 0, 0.0, 0.0, 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        if not len(values):
            return
        if not self.count:
            self._around = float(values[0])
        centred = values.astype(np.float64) - self._around
        self.count += len(values)
        self._sum += float(centred.sum())
        self._squares += float(centred @ centred)

    @property
    def mean(self) -> float:
        return self._around + self._sum / self.count

    @property
    def deviation(self) -> float:
        return float(max(0.0, self._squares / self.count - (self._sum / self.count) ** 2) ** 0.5)


_TEXTS = ("path", "status", "error")


class _Scored(NamedTuple):
    """The rows of a batch that have a score, and their positions in the batch."""

    row: NDArray[np.int64]
    score: NDArray[np.float32]
    std: NDArray[np.float32]
    positions: NDArray[np.int64]


def _scored(batch: pa.RecordBatch, numbers: Sequence[str]) -> _Scored:
    row, score, std = (batch.column(name).to_numpy(zero_copy_only=False) for name in numbers)
    positions = np.flatnonzero(~np.isnan(score))
    return _Scored(row[positions], score[positions], std[positions], positions)


def _rank(count: int, share: int) -> int:
    """Return the rank, of `count` values, that `share` thousandths of the other values lie below."""
    return share * (count - 1) // 1000
