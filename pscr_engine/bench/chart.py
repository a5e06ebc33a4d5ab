"""Draw benchmark records as bars in SVG: a title, groups of bars, a value at the end of each bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from typing import Any, NamedTuple

from .compare import rows
from .table import STAGES, name_of

_WIDTH, _LABEL, _VALUE = 760, 200, 90
_BAR, _GAP = 16, 12
_COLOURS = ("#3b6fb6", "#d9822b", "#4c9f70", "#a34c8c", "#8a8a3a", "#c0504d", "#5b5b9f", "#2e9c9c")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.title{font-size:16px;font-weight:600}.note{fill:#666}"
    "@media(prefers-color-scheme:dark){.ground{fill:#181a1f}text{fill:#eee}.note{fill:#aaa}}"
)


class Bar(NamedTuple):
    """One bar.

    Args:
        value: images per second.
        series: index of its record, which decides the colour.
    """

    value: float
    series: int = 0


def one(record: Mapping[str, Any]) -> str:
    """Draw one record: its stages alone and its whole runs."""
    groups = [(f"{name} alone", [Bar(record["stages_alone"][name]["median"])]) for name in STAGES]
    for run in record["runs"]:
        devices = run["devices"]
        name = f"whole run, {devices[0] if len(devices) == 1 else f'{len(devices)} devices'}"
        groups.append((name, [Bar(run["images_per_second"]["median"], 1)]))
    return svg(f"{record['bundle']['backbone']}: images per second, logarithmic", groups, [name_of(record)])


def several(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Draw the rates of several records, side by side."""
    groups = [
        (
            name.removesuffix(", images/s"),
            [Bar(value, series) for series, value in enumerate(values) if value is not None],
        )
        for name, values, _ in rows(records)
        if name.endswith("images/s")
    ]
    legend = [f"{name}: {name_of(record)}" for name, record in zip(names, records, strict=True)]
    return svg("images per second, logarithmic", groups, legend)


def svg(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], legend: Sequence[str]) -> str:
    """Draw groups of bars. Lengths are logarithmic, since stages differ by orders of magnitude."""
    groups = [(name, bars) for name, bars in groups if bars]
    values = [bar.value for _, bars in groups for bar in bars if bar.value > 0]
    low, high = log10(min(values)) - 0.3, log10(max(values))
    room = _WIDTH - _LABEL - _VALUE
    several = len(legend) > 1
    top = 52 + 20 * len(legend)
    parts, y = [], top
    for name, bars in groups:
        middle = y + len(bars) * _BAR / 2 + 5
        parts.append(f'<text x="{_LABEL - 10}" y="{middle:g}" text-anchor="end">{escape(name)}</text>')
        for bar in bars:
            length = room * (log10(bar.value) - low) / (high - low) if bar.value > 0 else 0
            colour = _COLOURS[bar.series % len(_COLOURS)]
            parts.append(
                f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR - 2}" rx="2" fill="{colour}"/>'
            )
            parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 12}">{_short(bar.value)}</text>')
            y += _BAR
        y += _GAP
    marks = []
    for series, text in enumerate(legend):
        line = 50 + 20 * series
        if several:
            marks.append(
                f'<rect x="16" y="{line - 11}" width="12" height="12" fill="{_COLOURS[series % len(_COLOURS)]}"/>'
            )
        marks.append(f'<text class="note" x="{34 if several else 16}" y="{line}">{escape(text)}</text>')
    described = "; ".join(f"{name}: {', '.join(_short(bar.value) for bar in bars)}" for name, bars in groups)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 8}" role="img" aria-labelledby="t d">',
            f'<title id="t">{escape(title)}</title><desc id="d">{escape(described)}</desc><style>{_STYLE}</style>',
            f'<rect class="ground" width="{_WIDTH}" height="{y + 8}" fill="#fff"/>',
            f'<text class="title" x="16" y="28">{escape(title)}</text>',
            *marks,
            *parts,
            "</svg>\n",
        ]
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
