"""The rule that says which images to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from ..errors import UsageError, option


@dataclass(frozen=True, slots=True)
class Top:
    """How many of the best to keep: a number, or a share.

    Args:
        number: how many; None if `percent` is given.
        percent: share of the images that take part, rounded up, so that each group with images keeps one.
    """

    number: int | None = None
    percent: Decimal | None = None

    @classmethod
    def parse(cls, text: str) -> Top:
        """Read "1000" or "10%".

        Raises:
            UsageError: it is neither.
        """
        try:
            if text.endswith("%"):
                percent = Decimal(text[:-1])
                if percent.is_finite() and 0 < percent <= 100:
                    return cls(percent=percent)
            elif int(text) >= 1:
                return cls(number=int(text))
        except (ValueError, InvalidOperation):
            pass
        raise UsageError(
            f"{option('--top')} {text}: must be a number of images, 1000 for example, or a share, 10% for example"
        )

    def of(self, size: int) -> int:
        """Return how many of `size` images to keep."""
        if self.number is not None:
            return min(self.number, size)
        assert self.percent is not None
        return math.ceil(self.percent * size / 100)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that says which images to keep.

    Images with a score take part if `min_score` and `max_std` admit them; of these, `top` keeps the best,
    in each group by itself. Of equal scores, the one with the smaller row counts as better.

    Args:
        top: how many of the best to keep; None for all that take part.
        min_score: smallest score that takes part; None for any.
        max_std: largest `score_std` that takes part; None for any.
        group_column: column of the manifest that says which group an image is in; None for one group.
        score: column of the scores to go by, in a run of several bundles; None for the only one.
        kept: only images that the run has decided to keep take part.
    """

    top: Top | None = None
    min_score: float | None = None
    max_std: float | None = None
    group_column: str | None = None
    score: str | None = None
    kept: bool = False

    def __post_init__(self) -> None:
        if self.top is None and self.min_score is None and self.max_std is None and not self.kept:
            raise UsageError(
                f"say what to keep: {option('--top', '10%')}, {option('--top', 1000)} or "
                f"{option('--min-score', 3.2)}, for example"
            )
        if self.group_column is not None and self.top is None:
            raise UsageError(
                f"{option('--per-group')} needs {option('--top')}: the other rules are the same for every group"
            )
        for flag, value in ((option("--min-score"), self.min_score), (option("--max-std"), self.max_std)):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{flag} {value}: must be a finite number")
