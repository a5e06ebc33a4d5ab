"""The comparison of two runs over the same images, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError, option
from ..output.run_reader import RunReader
from ..output.score_columns import ScoreColumns
from ..records import Status
from ..statistics.ranks import spearman
from .axis import Axis
from .counts import Density, Histogram
from .galleries import Leaders

_CELLS, _BINS, _BLOCK = 80, 60, 2**18
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_TAIL = 0.001
_NO_ROW = "no row"
_STATUSES = (_NO_ROW, *(status.value for status in Status))


@dataclass(frozen=True, slots=True)
class Mover:
    """An image whose score has changed.

    Args:
        row: its row in the manifest.
        before, after: its score in the other run, and in this one.
    """

    row: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Change:
    """The change of the scores, this run minus the other, over the images that have a score in both.

    Args:
        images: how many images these are.
        srcc: Spearman's rank correlation of the runs' scores; None if it is undefined.
        mean, mean_abs: mean of the change, and of its absolute value.
        quantiles: percent → the change that this share of the images lies below.
        risen, fallen: how many images have a higher, a lower score now.
        histogram: the changes.
        density: the other run's score (x) and this run's (y), on equal axes.
        most_risen, most_fallen: the images whose score rose, fell most, by descending change.
    """

    images: int
    srcc: float | None
    mean: float
    mean_abs: float
    quantiles: dict[int, float]
    risen: int
    fallen: int
    histogram: Histogram
    density: Density
    most_risen: list[Mover]
    most_fallen: list[Mover]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between this run and another one.

    Args:
        other: the other run.
        statuses: (status in the other run, status in this one) → number of images, where they differ.
        change: None if no image has a score in both.
    """

    other: RunReader
    statuses: dict[tuple[str, str], int]
    change: Change | None


def compare(run: RunReader, other: RunReader, images: int, score: ScoreColumns | None = None) -> Comparison:
    """Compare two runs row by row.

    Both runs' scores are in memory, 4 bytes per row each, and a sorted copy of each for the exact rank
    correlation: some 160 MB for 10 million rows.

    Args:
        run: this run.
        other: the other run; of the same manifest, with any bundle and settings.
        images: how many of the most risen and of the most fallen images to return.
        score: which of this run's scores; None for the only one. The other run's is the one of that name, or its only
            one.

    Raises:
        OutputError: the runs are of different manifests, or a part can't be read.
        UsageError: either has several scores, and nothing says which.
    """
    for name in ("manifest", "path_column"):
        ours, theirs = run.identity.get(name), other.identity.get(name)
        if ours != theirs:
            raise OutputError(
                f"{other.path}: scored another {name.replace('_', ' ')} than {run.path} ({_short(theirs)}, not "
                f"{_short(ours)}); {option('--compare')} needs two runs over the same rows"
            )
    end = max(run.end(), other.end())
    score = score or run.score()
    theirs_too = any(each.score == score.score for each in other.scores)
    after, status_after = _dense(run, end, score)
    before, status_before = _dense(other, end, other.score(score.score if theirs_too else None))
    statuses: Counter[tuple[str, str]] = Counter()
    pairs = np.bincount(status_before * len(_STATUSES) + status_after, minlength=len(_STATUSES) ** 2)
    for pair in np.flatnonzero(pairs).tolist():
        was, is_ = divmod(pair, len(_STATUSES))
        if was != is_:
            statuses[_STATUSES[was], _STATUSES[is_]] = int(pairs[pair])
    del status_before, status_after
    return Comparison(other, dict(statuses), _change(before, after, images))


def _change(before: NDArray[np.float32], after: NDArray[np.float32], images: int) -> Change | None:
    """Summarise the change between two runs' scores, float32 [N] by row, NaN for none; None if no row has both."""
    risen, fallen = Leaders(images), Leaders(images)
    total = total_abs = 0.0
    ups = downs = 0
    for rows, was, now in _blocks(before, after):
        moved = now.astype(np.float64) - was
        risen.add(np.where(moved > 0, moved, -np.inf), rows, was, now)
        fallen.add(np.where(moved < 0, -moved, -np.inf), rows, was, now)
        total, total_abs = total + float(moved.sum()), total_abs + float(np.abs(moved).sum())
        ups, downs = ups + int((moved > 0).sum()), downs + int((moved < 0).sum())
    both = ~(np.isnan(before) | np.isnan(after))
    before, after = before[both], after[both]
    del both
    count = len(before)
    if not count:
        return None
    srcc = spearman(before, after)
    changes = after - before
    ranks = {percent: percent * (count - 1) // 100 for percent in _QUANTILES}
    tail = (int(_TAIL * (count - 1)), int((1 - _TAIL) * (count - 1)))
    changes.partition(sorted({*ranks.values(), *tail}))
    histogram = Histogram(Axis.around(float(changes[tail[0]]), float(changes[tail[1]]), _BINS))
    quantiles = {percent: float(changes[rank]) for percent, rank in ranks.items()}
    del changes
    low = min(float(before.min()), float(after.min()))
    high = max(float(before.max()), float(after.max()))
    axis = Axis.around(low, high, _CELLS)
    density = Density(axis, axis)
    for _, was, now in _blocks(before, after):
        density.add(was, now)
        histogram.add(now - was)
    return Change(
        count,
        srcc,
        total / count,
        total_abs / count,
        quantiles,
        ups,
        downs,
        histogram,
        density,
        [Mover(*leader) for leader in risen.found()],
        [Mover(*leader) for leader in fallen.found()],
    )


def _blocks(
    before: NDArray[np.float32], after: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the rows that have both scores, and the two scores, a block of rows at a time."""
    for start in range(0, len(before), _BLOCK):
        was, now = before[start : start + _BLOCK], after[start : start + _BLOCK]
        rows = np.flatnonzero(~(np.isnan(was) | np.isnan(now)))
        yield rows + start, was[rows], now[rows]


def _dense(run: RunReader, end: int, score: ScoreColumns) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Read score, float32 [end], and status as an index into `_STATUSES`, int8 [end], of all rows below `end`."""
    scores, statuses = np.full(end, np.nan, np.float32), np.zeros(end, np.int8)
    for batch in run.batches("row", score.score, "status"):
        rows = batch.column("row").to_numpy()
        scores[rows] = batch.column(score.score).to_numpy(zero_copy_only=False)
        encoded = batch.column("status").dictionary_encode()
        numbers = np.array([_STATUSES.index(name) for name in encoded.dictionary.to_pylist()], np.int8)
        statuses[rows] = numbers[encoded.indices.to_numpy()]
    return scores, statuses


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 28 else text[:25] + "..."
