"""Ranges of numeric settings, which are checked when the settings are made: before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pscr_engine.errors import UsageError, is_on_command_line, option


class Range(NamedTuple):
    """The numbers that a setting may have.

    Args:
        low: the smallest.
        high: the largest.
        above: whether `low` itself is too small.
        below: whether `high` itself is too large.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: object) -> bool:
        """Tell whether a number is in the range; NaN and infinity never are."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        over = self.low < value if self.above else self.low <= value
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low, high = _digits(self.low), _digits(self.high)
        if self.high == math.inf:
            return f"above {low}" if self.above else f"at least {low}"
        if self.above:
            return f"above {low} and {'below' if self.below else 'at most'} {high}"
        return f"from {low} to {'below ' if self.below else ''}{high}"


SEED = Range(0, 2**32 - 2)
"""Seeds that all generators of random numbers take; the next one is used, too."""


def check_ranges(settings: object, ranges: Mapping[str, Range], also: str = "") -> None:
    """Check numeric settings.

    Args:
        settings: an object with an attribute for each of them; None is in every range.
        ranges: what is allowed, by the attribute's name, which is the option's with "_" for "-".
        also: what the options take beside a number, for messages.

    Raises:
        UsageError: one is out of its range.
    """
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is not None and value not in allowed:
            more = f", or {also if is_on_command_line() else None}" if also else ""
            flag = option("--" + name.replace("_", "-"), parameter=name)
            raise UsageError(f"{flag} {_digits(value)}: must be {allowed}{more}")


def _digits(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
