"""Where things are in the drawings: numbers for the template, which writes the SVG."""

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
    """The plot's rectangle within a drawing, in its units.

    Args:
        width, height: of the drawing.
        left, top, right, bottom: margins.
    """

    width: int = 720
    height: int = 278
    left: int = 62
    top: int = 14
    right: int = 16
    bottom: int = 66

    @property
    def inner_width(self) -> int:
        """Of the plot."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> int:
        """Of the plot."""
        return self.height - self.top - self.bottom

    @property
    def floor(self) -> int:
        """Where the x axis is."""
        return self.height - self.bottom

    def x(self, share: float) -> float:
        """Of a share of the x axis."""
        return round(self.left + share * self.inner_width, 2)

    def y(self, share: float) -> float:
        """Of a share of the y axis, from the bottom."""
        return round(self.floor - share * self.inner_height, 2)


class Tick(NamedTuple):
    """A place on an axis and what is written there."""

    at: float
    text: str


class Bar(NamedTuple):
    """A bar from the x axis up, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class HistogramChart:
    """A histogram.

    Args:
        frame: the drawing.
        bars: bins that hold something.
        x_ticks, y_ticks: of the axes.
        marks: quantiles.
    """

    frame: Frame
    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Tick]


class Level(NamedTuple):
    """All cells of about the same count: one path, and how strong its colour is, 1 to `_LEVELS`."""

    strength: int
    path: str


@dataclass(frozen=True, slots=True)
class DensityChart:
    """Counts on a grid.

    Args:
        frame: the drawing.
        levels: cells, by count.
        x_ticks, y_ticks: of the axes.
        steps: smallest count of each level.
    """

    frame: Frame
    levels: list[Level]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    steps: list[Tick]


def draw_histogram(histogram: Histogram, marks: Mapping[str, float] | None = None) -> HistogramChart:
    """Lay out a histogram; `marks`: text → value."""
    frame, axis = Frame(), histogram.axis
    highest = max(1, int(histogram.counts.max()))
    y_axis = Axis.around(0, highest, 4)
    scale = float(y_axis.high)
    bars = []
    for place, count in enumerate(histogram.counts.tolist()):
        if count:
            start = axis.low + place * axis.step
            x, right, y = frame.x(place / axis.bins), frame.x((place + 1) / axis.bins), frame.y(count / scale)
            # A bin with a single image among millions is still there to be seen.
            y = min(y, frame.floor - 1.0)
            text = f"{plain(start)} to {plain(start + axis.step)}: {images(count)}"
            bars.append(Bar(x + 0.5, y, round(right - x - 1, 2), round(frame.floor - y, 2), text))
    places = [Tick(frame.x(axis.share(value)), text) for text, value in (marks or {}).items()]
    whole = [tick for tick in _y_ticks(y_axis, frame, 4) if "." not in tick.text or tick.text[-1].isalpha()]
    return HistogramChart(frame, bars, x_ticks(axis, frame), whole, places)


def draw_density(density: Density, *, square: bool = False) -> DensityChart:
    """Lay out a density. Strengths are by the logarithm of the count: one image and a million both show."""
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
    steps = [Tick(_strength(place + 1, len(bounds)), f"{bound:,}") for place, bound in enumerate(bounds.tolist())]
    return DensityChart(frame, drawn, x_ticks(density.x, frame), _y_ticks(density.y, frame, 6), steps)


class Box(NamedTuple):
    """A group's spread: 5% to 95% as a line, 25% to 75% as a box, the median as a stroke."""

    low: float
    left: float
    middle: float
    right: float
    high: float


def draw_box(quantiles: Sequence[float], axis: Axis, width: float) -> Box | None:
    """Lay out a group's spread on a strip; None if it has none."""
    if not quantiles:
        return None
    return Box(*(round(min(1.0, max(0.0, axis.share(value))) * width, 1) for value in quantiles))


class Slice(NamedTuple):
    """A stage's share of a bar."""

    name: str
    x: float
    width: float


def draw_stages(seconds: Mapping[str, float], width: float = 720) -> list[Slice]:
    """Lay out a bar of the time that each stage took."""
    total, at, slices = sum(seconds.values()), 0.0, []
    for name, each in seconds.items():
        if each > 0:
            slices.append(Slice(name, round(at, 2), round(each / total * width, 2)))
            at += each / total * width
    return slices


def quantile_table(quantiles: Sequence[Statistic], scored: int) -> list[tuple[str, float, int]]:
    """Name, value, and how many images have at least that score, for a few quantiles."""
    named = {"lowest": 0, "1%": 10, "5%": 50, "25%": 250, "median": 500, "75%": 750, "95%": 950, "99%": 990}
    named["highest"] = 1000
    return [(name, float(quantiles[place].value), scored - quantiles[place].below) for name, place in named.items()]


def x_ticks(axis: Axis, frame: Frame) -> list[Tick]:
    """Places and texts along the x axis."""
    return [Tick(frame.x(axis.share(float(value))), plain(value)) for value in axis.ticks(6)]


def _y_ticks(axis: Axis, frame: Frame, most: int) -> list[Tick]:
    return [Tick(frame.y(axis.share(float(value))), short(value)) for value in axis.ticks(most)]


def _strength(level: int, levels: int) -> int:
    return _LEVELS if levels == 1 else 1 + round((level - 1) * (_LEVELS - 1) / (levels - 1))


def plain(value: Decimal) -> str:
    """Without trailing zeros or an exponent."""
    return f"{value.normalize():f}"


def short(value: Decimal) -> str:
    """Thousands and millions by a letter, so that a margin of fixed width holds them."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= size:
            return plain(value / size) + letter
    return plain(value)
