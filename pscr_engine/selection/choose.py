"""The application of a rule to a run: first its thresholds are found, then its rows are filtered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..output.run_groups import Groups, with_groups
from ..output.run_reader import RunReader
from ..output.score_columns import ScoreColumns
from ..statistics.order_statistics import OrderStatistics
from .rule import Rule

# As `score --keep-above` writes it.
DECISION, KEEP = "decision", "keep"


@dataclass(frozen=True, slots=True)
class GroupChoice:
    """How many images of a group are kept, and down to which score.

    Args:
        taking_part: how many images the rule admits.
        kept: how many it keeps.
        threshold: the smallest score that is kept; None if nothing is.
        at_threshold: how many of those that take part have exactly that score.
        kept_at_threshold: how many of these are kept, the first in the order of rows.
    """

    taking_part: int
    kept: int
    threshold: np.float32 | None
    at_threshold: int
    kept_at_threshold: int


@dataclass(frozen=True, slots=True)
class Choice:
    """How many images of a run are kept.

    Args:
        rows: how many rows the parts have.
        scored: how many of them have a score.
        groups: the choice in each group; a single one without groups.
    """

    rows: int
    scored: int
    groups: list[GroupChoice]

    @property
    def kept(self) -> int:
        """Return how many images are kept in all groups together."""
        return sum(group.kept for group in self.groups)


def choose(run: RunReader, rule: Rule, groups: Groups | None) -> Choice:
    """Find exactly what a rule keeps, in memory that doesn't grow with the rows.

    Raises:
        OutputError: a part can't be read.
    """

    def ranks(size: int) -> list[int]:
        return [size - rule.top.of(size) if rule.top is not None else 0]

    by = run.score(rule.score)
    statistics = OrderStatistics(ranks, 1 if groups is None else len(groups))
    rows = scored = 0
    first = True
    while statistics.wants_pass():
        for batch, of_rows in with_groups(run, groups, *_columns(rule, by)):
            scores, takes_part = _taking_part(batch, rule, by)
            statistics.add(scores[takes_part], None if of_rows is None else of_rows[takes_part])
            if first:
                rows += batch.num_rows
                scored += batch.num_rows - batch.column(by.score).null_count
        first = False
    by_group = dict(statistics.all())
    chosen = []
    for group, size in enumerate(statistics.sizes.tolist()):
        if group not in by_group:
            chosen.append(GroupChoice(0, 0, None, 0, 0))
            continue
        kept = size if rule.top is None else rule.top.of(size)
        value, below, equal = by_group[group]
        chosen.append(GroupChoice(size, kept, value, equal, kept - (size - below - equal)))
    return Choice(rows, scored, chosen)


def kept_rows(
    run: RunReader, rule: Rule, groups: Groups | None, choice: Choice, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    """Yield `columns` of the kept rows, in the order of rows; raises OutputError if a part can't be read."""
    thresholds = np.array(
        [np.inf if group.threshold is None else group.threshold for group in choice.groups], np.float32
    )
    left = np.array([group.kept_at_threshold for group in choice.groups], np.int64)
    by = run.score(rule.score)
    needed = list(dict.fromkeys([*_columns(rule, by), *columns]))
    for batch, of_rows in with_groups(run, groups, *needed):
        scores, takes_part = _taking_part(batch, rule, by)
        of_rows = np.zeros(batch.num_rows, np.int32) if of_rows is None else of_rows
        limits = thresholds[of_rows]
        keep = takes_part & (scores > limits)
        equal = np.flatnonzero(takes_part & (scores == limits))
        keep[equal[_occurrence(of_rows[equal]) < left[of_rows[equal]]]] = True
        left -= np.bincount(of_rows[equal], minlength=len(left))
        if keep.any():
            yield batch.select(columns).filter(pa.array(keep))


def _columns(rule: Rule, by: ScoreColumns) -> list[str]:
    """List the columns of a run that a rule looks at."""
    return [by.score, by.std, *([DECISION] if rule.kept else [])]


def _taking_part(batch: pa.RecordBatch, rule: Rule, by: ScoreColumns) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a batch's scores, float32 [N], NaN where there is none, and which of them take part, bool [N]."""
    scores = batch.column(by.score).to_numpy(zero_copy_only=False)
    takes_part = ~np.isnan(scores)
    if rule.kept:
        takes_part &= pc.equal(batch.column(DECISION), KEEP).fill_null(False).to_numpy(zero_copy_only=False)
    if rule.min_score is not None:
        takes_part &= scores >= np.float32(rule.min_score)
    if rule.max_std is not None:
        takes_part &= batch.column(by.std).to_numpy(zero_copy_only=False) <= np.float32(rule.max_std)
    return scores, takes_part


def _occurrence(groups: NDArray[np.int32]) -> NDArray[np.int64]:
    """Count, for each element, how many earlier ones are in the same group, int64 [N]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.searchsorted(ordered, ordered)
    earlier = np.empty(len(groups), np.int64)
    earlier[order] = np.arange(len(groups)) - starts
    return earlier
