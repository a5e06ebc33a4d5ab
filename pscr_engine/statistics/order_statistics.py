"""Exact order statistics of any number of float32 values, in bounded memory, over a few passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .float_order import keys_of, values_of

_KEY_BITS = 32
_COUNTERS = 2**22
"""How many counters there may be, 8 bytes each."""


class Statistic(NamedTuple):
    """The value at a rank of a sorted list, and how many others are smaller or equal.

    Args:
        value: the value at the rank asked for.
        below: how many values are smaller.
        equal: how many values are equal to it, itself included.
    """

    value: np.float32
    below: int
    equal: int


class OrderStatistics:
    """The exact values at given ranks, of one or several groups, found a few bits per pass.

    A pass counts, for each group, how many values begin with which bits (as ordered integers, see
    `float_order`). The counts say in which of these ranges the value at a rank is, and how many values
    lie below it; the next pass looks at the next bits of the values in those ranges only. When all 32
    bits are known, so is the value: nothing is sampled, interpolated or rounded, which is why the result
    is that of a sort. Memory is that of the counters: fewer bits at a time, and so more passes, where
    there are many groups.

    Every pass must give the same values, in any order:

        statistics = OrderStatistics(lambda count: [count // 2])
        while statistics.wants_pass():
            for values in ...:
                statistics.add(values)

    Args:
        ranks: returns the wanted ranks, from 0 (the smallest), given a group's size; not called for an empty group.
        groups: how many groups there are.
        counters: how many counters to use at most, unless there are even more groups.
    """

    def __init__(self, ranks: Callable[[int], Sequence[int]], groups: int = 1, counters: int = _COUNTERS) -> None:
        self._ranks, self._counters = ranks, counters
        self.sizes = np.zeros(groups, np.int64)
        # The ranges that are counted, sorted: group and the bits known so far, as one integer.
        self._ranges = np.arange(groups, dtype=np.uint64)
        self._known, self._digit = 0, 0
        self._counts: NDArray[np.int64] | None = None
        # For each rank: its group, the rank within its range, how many values lie below and in it, and its index.
        self._group_of = self._rest = self._below = self._equal = self._range_of = np.zeros(0, np.int64)

    def wants_pass(self) -> bool:
        """Tell whether another pass is needed; also end the last one, if there was one, and prepare the next."""
        if self._counts is not None:
            self._narrow(self._counts)
            self._counts = None
        if self._known == _KEY_BITS or (self._known and not len(self._rest)):
            return False
        room = max(1, self._counters // len(self._ranges))
        self._digit = min(_KEY_BITS - self._known, max(1, room.bit_length() - 1))
        self._counts = np.zeros((len(self._ranges), 2**self._digit), np.int64)
        return True

    def add(self, values: NDArray[np.float32], groups: NDArray[np.integer] | None = None) -> None:
        """Count values of a pass, [N], by their groups, [N] (None: all in group 0); do nothing if no pass is wanted."""
        if self._counts is None:
            return
        keys = keys_of(values)
        ranges = np.zeros(len(keys), np.uint64) if groups is None else groups.astype(np.uint64)
        if self._known:
            ranges = (ranges << np.uint64(self._known)) | (keys >> np.uint32(_KEY_BITS - self._known))
            positions = np.minimum(np.searchsorted(self._ranges, ranges), len(self._ranges) - 1)
            counted = self._ranges[positions] == ranges
            keys, ranges = keys[counted], positions[counted].astype(np.uint64)
        digits = (keys >> np.uint32(_KEY_BITS - self._known - self._digit)) & np.uint32(2**self._digit - 1)
        np.add.at(self._counts.reshape(-1), (ranges << np.uint64(self._digit)) | digits, 1)

    def of(self, group: int = 0) -> list[Statistic]:
        """Return the statistics of a group after the last pass, one per rank, in the order of `ranks`."""
        return list(self._statistics(np.flatnonzero(self._group_of == group)))

    def all(self) -> Iterator[tuple[int, Statistic]]:
        """Iterate over group and statistic of every rank, after the last pass."""
        everything = np.arange(len(self._group_of))
        return zip(self._group_of.tolist(), self._statistics(everything), strict=True)

    def _statistics(self, chosen: NDArray[np.integer]) -> Iterator[Statistic]:
        keys = self._ranges[self._range_of[chosen]].astype(np.uint32)
        for value, below, equal in zip(values_of(keys), self._below[chosen], self._equal[chosen], strict=True):
            yield Statistic(value, int(below), int(equal))

    def _narrow(self, counts: NDArray[np.int64]) -> None:
        """Narrow each rank's range by the bits that the last pass has counted."""
        if not self._known:
            self.sizes = counts.sum(axis=1)
            asked = [(group, rank) for group, size in enumerate(self.sizes) if size for rank in self._ranks(int(size))]
            self._group_of, self._rest = np.array(asked, np.int64).reshape(-1, 2).T.copy()
            self._below, self._range_of = np.zeros_like(self._rest), self._group_of
        ends = np.cumsum(counts, axis=1, out=counts)
        digits = np.zeros_like(self._rest)  # binary search for the digit whose count holds the rank
        for step in (2**bit for bit in reversed(range(self._digit))):
            digits += np.where(ends[self._range_of, digits + step - 1] <= self._rest, step, 0)
        before = np.where(digits, ends[self._range_of, digits - 1], 0)
        self._equal = ends[self._range_of, digits] - before
        self._rest = self._rest - before
        self._below = self._below + before
        ranges = (self._ranges[self._range_of] << np.uint64(self._digit)) | digits.astype(np.uint64)
        self._known += self._digit
        self._ranges, self._range_of = np.unique(ranges, return_inverse=True)
