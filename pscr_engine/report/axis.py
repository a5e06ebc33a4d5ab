"""Axes of charts: round ends and steps, ticks, and the bin that a value falls in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray


def round_step(width: float) -> Decimal:
    """Return the smallest of 1, 2 or 5 times a power of ten that is at least `width`."""
    power = Decimal(10) ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= Decimal(width) * Decimal("0.999999"))


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from `low` to `high`, both multiples of `step`.

    Args:
        low, high: the ends, as decimals, so that what is printed is exact.
        step: width of a bin.
    """

    low: Decimal
    high: Decimal
    step: Decimal

    @classmethod
    def around(cls, low: float, high: float, bins: int) -> Axis:
        """Make an axis that holds `low` to `high` in about `bins` bins, at most `bins` + 2."""
        if not high - low > 1e-6 * max(abs(low), abs(high), 1e-30):  # a single value, or as good as that
            margin = max(abs(low) * 1e-3, 0.5)
            low, high = low - margin, high + margin
        step = round_step((high - low) / bins)
        first, last = (Decimal(low) / step).to_integral_value("ROUND_FLOOR"), Decimal(high) / step
        return cls(first * step, last.to_integral_value("ROUND_FLOOR") * step + step, step)

    @property
    def bins(self) -> int:
        """Return the number of bins."""
        return int((self.high - self.low) / self.step)

    def share(self, value: float) -> float:
        """Return where a value lies on the axis: 0 at `low`, 1 at `high`."""
        return (float(value) - float(self.low)) / (float(self.high) - float(self.low))

    def ticks(self, most: int) -> list[Decimal]:
        """List round values on the axis for its ticks, at most `most`."""
        step = max(self.step, round_step(float(self.high - self.low) / max(1, most - 1)))
        first = (self.low / step).to_integral_value("ROUND_CEILING")
        count = int(((self.high - first * step) / step).to_integral_value("ROUND_FLOOR")) + 1
        return [(first + index) * step for index in range(count)]

    def steps(self, most: int) -> list[str]:
        """List evenly spaced round values from `low` to `high`, at most `most` + 1, as decimals without an exponent."""
        step = round_step(float(self.high - self.low) / most)
        step = self.step if step > self.step else step
        count = int(((self.high - self.low) / step).to_integral_value("ROUND_FLOOR"))
        return [f"{(self.low + index * step).normalize():f}" for index in range(count + 1)]

    def places(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the bin of each value, int64 [N]; a value beyond an end is in the nearest bin."""
        shares = (values.astype(np.float64) - float(self.low)) / float(self.high - self.low)
        return np.clip(np.floor(shares * self.bins), 0, self.bins - 1).astype(np.int64)
