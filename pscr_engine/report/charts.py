"""Coordinates of the report's charts, for the template, which writes them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from ..statistics.order_statistics import Statistic
from .axis import Axis
from .counts import Density, Histogram
from .formatting import images

_LEVELS = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of a drawing, and the margins around the plot in it, in the units of its SVG.

    Args:
        width, height: size of the drawing.
        left, top, right, bottom: the margins.
    """

    width: int = 720
    height: int = 278
    left: int = 62
    top: int = 14
    right: int = 16
    bottom: int = 66

    @property
    def inner_width(self) -> int:
        """Return the width of the plot, without the margins."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> int:
        """Return the height of the plot, without the margins."""
        return self.height - self.top - self.bottom

    @property
    def floor(self) -> int:
        """Return the y coordinate of the x axis."""
        return self.height - self.bottom

    def x(self, share: float) -> float:
        """Return the x coordinate of a share of the x axis: 0 is its left end, 1 its right end."""
        return round(self.left + share * self.inner_width, 2)

    def y(self, share: float) -> float:
        """Return the y coordinate of a share of the y axis: 0 is its bottom, 1 its top."""
        return round(self.floor - share * self.inner_height, 2)


class Tick(NamedTuple):
    """A coordinate on an axis, and the text to write there."""

    at: float
    text: str


class Bar(NamedTuple):
    """A bar that stands on the x axis, and the text that says what it counts."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class HistogramChart:
    """The coordinates of a histogram.

    Args:
        frame: the drawing.
        bars: one for each bin that isn't empty.
        x_ticks, y_ticks: ticks of the axes.
        marks: labelled values, as vertical lines.
    """

    frame: Frame
    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Tick]


class Level(NamedTuple):
    """All cells of about the same count: the strength of their colour, 1 to `_LEVELS`, and one SVG path."""

    strength: int
    path: str


@dataclass(frozen=True, slots=True)
class DensityChart:
    """The coordinates of a grid whose cells are coloured by their counts.

    Args:
        frame: the drawing.
        levels: the cells, grouped by count.
        x_ticks, y_ticks: ticks of the axes.
        steps: the legend: strength and smallest count of each level.
    """

    frame: Frame
    levels: list[Level]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    steps: list[Tick]


def draw_histogram(histogram: Histogram, marks: Mapping[str, float] | None = None) -> HistogramChart:
    """Lay out a histogram, with vertical lines at the values of `marks` (text → value)."""
    frame, axis = Frame(), histogram.axis
    highest = max(1, int(histogram.counts.max()))
    y_axis = Axis.around(0, highest, 4)
    scale = float(y_axis.high)
    bars = []
    for index, count in enumerate(histogram.counts.tolist()):
        if count:
            start = axis.low + index * axis.step
            x, right, y = frame.x(index / axis.bins), frame.x((index + 1) / axis.bins), frame.y(count / scale)
            # A bin with a single image among millions must be visible, too.
            y = min(y, frame.floor - 1.0)
            text = f"{plain(start)} to {plain(start + axis.step)}: {images(count)}"
            bars.append(Bar(x + 0.5, y, round(right - x - 1, 2), round(frame.floor - y, 2), text))
    lines = [Tick(frame.x(axis.share(value)), text) for text, value in (marks or {}).items()]
    whole = [tick for tick in _y_ticks(y_axis, frame, 4) if "." not in tick.text or tick.text[-1].isalpha()]
    return HistogramChart(frame, bars, x_ticks(axis, frame), whole, lines)


def draw_density(density: Density, *, square: bool = False) -> DensityChart:
    """Lay out a density, coloured by the logarithm of the count, so that one image and a million both show."""
    frame = Frame(height=748 if square else 456, top=40)
    highest = max(1, int(density.counts.max()))
    levels = min(_LEVELS, highest)
    smallest = np.exp(np.linspace(0, math.log(highest), levels, endpoint=False))
    bounds = np.unique(np.ceil(smallest - 1e-9).astype(np.int64))
    strength = np.searchsorted(bounds, density.counts, side="right")
    width, height = frame.inner_width / density.x.bins, frame.inner_height / density.y.bins
    drawn = []
    for level in range(1, len(bounds) + 1):
        path = "".join(
            f"M{frame.left + x * width:.1f} {frame.floor - (y + 1) * height:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z"
            for y, x in np.argwhere(strength == level).tolist()
        )
        if path:
            drawn.append(Level(_strength(level, len(bounds)), path))
    steps = [Tick(_strength(index + 1, len(bounds)), f"{bound:,}") for index, bound in enumerate(bounds.tolist())]
    return DensityChart(frame, drawn, x_ticks(density.x, frame), _y_ticks(density.y, frame, 6), steps)


class Box(NamedTuple):
    """The distribution of a group's scores: 5% to 95% as a line, 25% to 75% as a box, the median as a stroke."""

    low: float
    left: float
    middle: float
    right: float
    high: float


def draw_box(quantiles: Sequence[float], axis: Axis, width: float) -> Box | None:
    """Lay out a group's five quantiles on a strip `width` units wide; return None if there are no quantiles."""
    if not quantiles:
        return None
    return Box(*(round(min(1.0, max(0.0, axis.share(value))) * width, 1) for value in quantiles))


class Slice(NamedTuple):
    """A stage's section of the bar that shows where the time went."""

    name: str
    x: float
    width: float


def draw_stages(seconds: Mapping[str, float], width: float = 720) -> list[Slice]:
    """Lay out a bar, `width` units long, with a section for the seconds of each stage."""
    total, at, slices = sum(seconds.values()), 0.0, []
    for name, each in seconds.items():
        if each > 0:
            slices.append(Slice(name, round(at, 2), round(each / total * width, 2)))
            at += each / total * width
    return slices


def quantile_table(quantiles: Sequence[Statistic], scored: int) -> list[tuple[str, float, int]]:
    """List a few quantiles: name, score, and how many images have at least that score."""
    named = {"lowest": 0, "1%": 10, "5%": 50, "25%": 250, "median": 500, "75%": 750, "95%": 950, "99%": 990}
    named["highest"] = 1000
    return [(name, float(quantiles[index].value), scored - quantiles[index].below) for name, index in named.items()]


def x_ticks(axis: Axis, frame: Frame) -> list[Tick]:
    """List the ticks of the x axis."""
    return [Tick(frame.x(axis.share(float(value))), plain(value)) for value in axis.ticks(6)]


def _y_ticks(axis: Axis, frame: Frame, most: int) -> list[Tick]:
    return [Tick(frame.y(axis.share(float(value))), short(value)) for value in axis.ticks(most)]


def _strength(level: int, levels: int) -> int:
    return _LEVELS if levels == 1 else 1 + round((level - 1) * (_LEVELS - 1) / (levels - 1))


def plain(value: Decimal) -> str:
    """Format a number without trailing zeros or an exponent."""
    return f"{value.normalize():f}"


def short(value: Decimal) -> str:
    """Format a number, with k, M or G for thousands, millions or billions, so that it fits the left margin."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= size:
            return plain(value / size) + letter
    return plain(value)
