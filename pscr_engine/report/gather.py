"""What the page says of a run's scores, gathered in three passes over the parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..output.run_groups import Groups, with_groups
from ..output.run_reader import RunReader
from ..statistics.float_order import shortest
from ..statistics.order_statistics import OrderStatistics, Statistic
from .axis import Axis
from .counts import Density, Histogram, Thresholds
from .failures import Failures
from .galleries import Leaders, Pick
from .group_table import GroupRow, GroupTable

# The axes hold all but the outermost two thousandths of the images: one outlier would squash the rest.
_TAIL = 1
_BINS, _CELLS_X, _CELLS_Y = 60, 90, 54
STEPS = 500
"""Of the slider, at most; it depends on round numbers."""

_LADDER = (0, 10, 25, 50, 75, 90, 100)
# Below this many images, bins are wider: else most would hold one image or none.
_MANY = 5000


@dataclass(frozen=True, slots=True)
class Shape:
    """What the scores look like.

    Args:
        quantiles: at 0, 0.1%, … 100%: each is the score of an image.
        mean, deviation: of the scores.
        histogram: of the scores.
        density: of score and score_std.
        thresholds: decimals, ascending, and how many images have at least that score.
        galleries: what to show: best, worst, median, uncertain.
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
    """All that the page says of a run's rows.

    Args:
        failures: counts by status, and why.
        shape: None if nothing has a score.
        groups: one line per group; empty unless asked for.
    """

    failures: Failures
    shape: Shape | None
    groups: list[GroupRow]

    @property
    def rows(self) -> int:
        """In the parts."""
        return self.failures.status.total()

    @property
    def scored(self) -> int:
        """Rows with a score."""
        return self.rows - self.failures.total


def gather(run: RunReader, images: int, groups: Groups | None = None) -> Gathered:
    """Read the parts: count, refine, draw.

    What is kept between passes is counters. The first pass counts failures and the leading bits of all
    scores, the second finds the quantiles exactly, the third counts along axes that fit them, and finds the
    images around the median.

    Args:
        run: the run.
        images: how many to show per gallery.
        groups: which group each row is in.

    Raises:
        OutputError: a part can't be read.
    """
    failures, totals = Failures(), _Totals()
    scores = OrderStatistics(lambda count: [_rank(count, place) for place in range(1001)])
    deviations = OrderStatistics(lambda count: [_rank(count, place) for place in (_TAIL, 1000 - _TAIL)])
    table = None if groups is None else GroupTable(groups)
    best, worst, uncertain = Leaders(images), Leaders(images), Leaders(images)
    first = True
    statistics: list[OrderStatistics | GroupTable] = [scores, deviations, *([] if table is None else [table])]
    while True in [each.wants_pass() for each in statistics]:  # not any(): each of them must hear of it
        for batch, of_rows in with_groups(run, groups, *_NUMBERS, *(_TEXTS if first else ())):
            found = _scored(batch)
            scores.add(found.score)
            deviations.add(found.std)
            if table is not None and of_rows is not None:
                table.add(found.score, of_rows[found.places], first=first)
            if first:
                failures.add(batch)
                totals.add(found.score)
                best.add(found.score, found.row, found.score, found.std)
                worst.add(-found.score, found.row, found.score, found.std)
                uncertain.add(found.std, found.row, found.score, found.std)
        first = False
    galleries = {"best": best.picks(), "worst": worst.picks(), "uncertain": uncertain.picks()}
    shape = _shape(run, images, scores.of(), deviations.of(), totals, galleries) if totals.count else None
    return Gathered(failures, shape, table.lines() if table is not None else [])


def _shape(
    run: RunReader,
    images: int,
    quantiles: list[Statistic],
    deviations: list[Statistic],
    totals: _Totals,
    galleries: dict[str, list[Pick]],
) -> Shape:
    """The third pass."""
    low, high = (float(quantiles[place].value) for place in (_TAIL, 1000 - _TAIL))
    fineness = min(1.0, (totals.count / _MANY) ** (1 / 3))
    axis = Axis.around(low, high, max(12, int(_BINS * fineness)))
    histogram, thresholds = Histogram(axis), Thresholds(axis.steps(STEPS))
    near = {percent: Leaders(images if percent == 50 else min(images, 1)) for percent in _LADDER}
    spread = (float(deviations[0].value), float(deviations[1].value))
    coarser = max(0.5, fineness)
    density = Density(Axis.around(low, high, int(_CELLS_X * coarser)), Axis.around(*spread, int(_CELLS_Y * coarser)))
    for batch in run.batches(*_NUMBERS):
        found = _scored(batch)
        histogram.add(found.score)
        density.add(found.score, found.std)
        thresholds.add(found.score)
        for percent, leaders in near.items():
            distance = np.abs(found.score - quantiles[10 * percent].value)
            leaders.add(-distance, found.row, found.score, found.std)
    kept = dict(zip(thresholds.texts, thresholds.kept(), strict=True))
    kept |= {shortest(each.value): totals.count - each.below for each in quantiles}
    ascending = sorted(kept.items(), key=lambda pair: np.float32(pair[0]))
    galleries = {**galleries, "median": near[50].picks()}
    ladder = {percent: leaders.picks()[0] for percent, leaders in near.items() if images}
    return Shape(quantiles, totals.mean, totals.deviation, histogram, density, ascending, galleries, ladder)


class _Totals:
    """Mean and standard deviation, in one pass. Around the first value, so that a large mean costs no digits."""

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


_NUMBERS, _TEXTS = ("row", "score", "score_std"), ("path", "status", "error")


class _Scored(NamedTuple):
    """The rows of a batch that have a score, and where they are in it."""

    row: NDArray[np.int64]
    score: NDArray[np.float32]
    std: NDArray[np.float32]
    places: NDArray[np.int64]


def _scored(batch: pa.RecordBatch) -> _Scored:
    row, score, std = (batch.column(name).to_numpy(zero_copy_only=False) for name in _NUMBERS)
    places = np.flatnonzero(~np.isnan(score))
    return _Scored(row[places], score[places], std[places], places)


def _rank(count: int, place: int) -> int:
    """The rank that `place` thousandths of the others lie below."""
    return place * (count - 1) // 1000
