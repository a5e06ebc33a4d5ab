"""The sections about scores: distribution and slider, uncertainty, galleries, groups."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from ...html import ScoreFormat
from ...output.score_columns import ScoreColumns
from ...stores.uri import Place
from ..axis import Axis
from ..charts import Frame, draw_box, draw_density, draw_histogram, quantile_table
from ..formatting import Shown, count, tile
from ..gather import STEPS, Shape
from ..group_table import GroupRow

_PRESETS = (1, 5, 10, 25, 50, 75)
_STRIP = 200.0
_GALLERIES = {
    "best": ("Best", "The highest scores, best first."),
    "median": ("Median", "The images nearest to the median."),
    "worst": ("Worst", "The lowest scores, worst first."),
    "uncertain": ("Most uncertain", "The largest score_std: the exemplars disagree most about these."),
}


def score_sections(
    folder: Place, shape: Shape, scored: int, shown: Mapping[int, Shown], scale: ScoreFormat, score: ScoreColumns
) -> dict[str, Any]:
    """Build what the template needs for the scores of the run in `folder`."""
    lowest, median, highest = (float(shape.quantiles[index].value) for index in (0, 500, 1000))
    x, y = shape.density.x, shape.density.y
    return {
        "histogram": draw_histogram(shape.histogram, {"median": median}),
        "histogram_text": (
            f"Half of the {count(scored)} images have at least {scale.score(median)}; lowest {scale.score(lowest)}, "
            f"highest {scale.score(highest)}. A table of quantiles follows."
        ),
        "shape_text": f"Mean {scale.score(shape.mean)}, standard deviation {scale.score(shape.deviation)}.",
        "quantiles": quantile_table(shape.quantiles, scored),
        "density": draw_density(shape.density),
        "density_text": f"Counts on a grid: score from {x.low:f} to {x.high:f}, score_std {y.low:f} to {y.high:f}.",
        "beyond": shape.density.beyond,
        "keep": _keep(folder.resolve() if isinstance(folder, Path) else folder, shape, scored, score),
        "ladder": [(percent, tile(pick, shown, scale)) for percent, pick in shape.ladder.items()],
        "galleries": [
            (*_GALLERIES[name], [tile(pick, shown, scale) for pick in shape.galleries[name]])
            for name in _GALLERIES
            if shape.galleries[name]
        ],
    }


def _keep(folder: Place, shape: Shape, scored: int, score: ScoreColumns) -> dict[str, Any]:
    """Build what the slider needs: thresholds with exact counts, and filters to copy."""
    axis, frame = shape.histogram.axis, Frame()
    texts, kept = [text for text, _ in shape.thresholds], [kept for _, kept in shape.thresholds]
    on_slider = set(axis.steps(STEPS))
    slider = [index for index, text in enumerate(texts) if text in on_slider]
    start = min(range(len(slider)), key=lambda step: abs(kept[slider[step]] - scored / 2))
    first = texts[slider[start]]
    lines = _filters(str(folder), score)
    return {
        "slider": slider,
        "start": start,
        "start_text": first,
        "start_kept": kept[slider[start]],
        "start_x": frame.x(axis.share(float(first))),
        "presets": [(f"{share}%", _nearest(kept, ceil(share * scored / 100))) for share in _PRESETS],
        "lines": lines,
        "data": {
            "scored": scored,
            "every": scored <= len(shape.quantiles),  # every score is among the thresholds
            "thresholds": texts,
            "kept": kept,
            "slider": slider,
            "low": float(axis.low),
            "high": float(axis.high),
            "left": frame.left,
            "width": frame.inner_width,
            "lines": {name: line for name, _, line in lines},
        },
    }


def _nearest(kept: list[int], wanted: int) -> int:
    """Return the index of the threshold that keeps nearly `wanted` images; of several, the highest."""
    return min(range(len(kept)), key=lambda index: (abs(kept[index] - wanted), -index))


def _filters(folder: str, score: ScoreColumns) -> list[tuple[str, str, tuple[str, str]]]:
    """List filters that compare as float32, as the counts do: name, title, text before and after the threshold."""
    by = f" --score {score.score}" if score.model else ""
    parts = f"{glob.escape(folder)}/part-*.parquet".replace("'", "''")
    return [
        ("duckdb", "DuckDB", (f"SELECT * FROM '{parts}' WHERE {score.score} >= '", "'::FLOAT;")),
        (
            "pyarrow",
            "pyarrow",
            (
                f"pyarrow.dataset.dataset({folder!r}, exclude_invalid_files=True)"
                f'.to_table(filter=pyarrow.dataset.field("{score.score}") >= pyarrow.scalar(',
                ", pyarrow.float32()))",
            ),
        ),
        (
            "select",
            "pscr-engine, with the manifest’s columns",
            (f"pscr-engine select {shlex.quote(folder)}{by} --min-score=", " --out kept.parquet"),
        ),
    ]


def group_section(column: str, groups: list[GroupRow]) -> dict[str, Any]:
    """Build what the template needs for the table of groups."""
    values = [value for group in groups for value in group.quantiles]
    strip = Axis.around(min(values, default=0.0), max(values, default=1.0), 20)
    rows = sum(group.rows for group in groups)
    return {
        "group_column": column,
        "groups": [(group, draw_box(group.quantiles, strip, _STRIP)) for group in groups],
        "groups_text": f"{count(rows)} images",
        "strip": strip,
    }
