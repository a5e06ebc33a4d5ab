"""The section that compares the run with another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...html import ScoreFormat
from ...output.run_reader import RunReader
from ..charts import draw_density, draw_histogram
from ..comparison import Change, Comparison, Mover
from ..formatting import Shown, count, images, percent

_DIGEST = 64


def compare_section(
    run: RunReader, comparison: Comparison, shown: Mapping[int, Shown], scale: ScoreFormat
) -> dict[str, Any]:
    """Build what the template needs for the comparison."""
    other, change = comparison.other, comparison.change
    name = other.name
    if name == run.name:
        name = str(other.path)
    section: dict[str, Any] = {
        "name": name,
        "text": "The same images, scored by two runs. Changes are this run minus the other one.",
        "differences": _differences(run, other),
        "statuses": sorted(
            ((was, now, images) for (was, now), images in comparison.statuses.items()), key=lambda each: -each[2]
        ),
        "change": change,
    }
    if change is None:
        return {**section, "text": "No image has a score in both runs."}
    of_change = ScoreFormat.for_range(float(change.histogram.axis.low), float(change.histogram.axis.high))
    srcc = "–" if change.srcc is None else f"{change.srcc:.4f}"
    return section | {
        "tiles": [
            ("In both", count(change.images), "images with a score"),
            ("SRCC", srcc, "of all of them, exact"),
            ("Mean change", of_change.difference(change.mean), f"mean |change| {of_change.score(change.mean_abs)}"),
            ("Higher now", percent(change.risen, change.images), images(change.risen)),
            ("Lower now", percent(change.fallen, change.images), images(change.fallen)),
        ],
        "density": draw_density(change.density, square=True),
        "density_text": f"A grid of counts, both axes from {change.density.x.low:f} to {change.density.x.high:f}.",
        "histogram": draw_histogram(change.histogram, {"no change": 0.0} if _holds_zero(change) else None),
        "histogram_text": f"Half of the images change by at least {of_change.difference(change.quantiles[50])}.",
        "quantiles": [
            ({0: "lowest", 50: "median", 100: "highest"}.get(share, f"{share}%"), of_change.difference(value))
            for share, value in change.quantiles.items()
        ],
        "movers": [
            ("Risen most", [_tile(mover, shown, scale, of_change) for mover in change.most_risen]),
            ("Fallen most", [_tile(mover, shown, scale, of_change) for mover in change.most_fallen]),
        ],
    }


def _holds_zero(change: Change) -> bool:
    return float(change.histogram.axis.low) <= 0 <= float(change.histogram.axis.high)


def _differences(run: RunReader, other: RunReader) -> list[tuple[str, str, str]]:
    """List the settings in which the runs differ: name, value in the other run, value in this one."""
    ours, theirs = run.identity, other.identity
    names = [name for name in ours if name != "chunk_rows" and ours[name] != theirs.get(name)]
    return [(name.replace("_", " "), _value(theirs.get(name)), _value(ours[name])) for name in names]


def _value(value: object) -> str:
    """Shorten a digest to its beginning; leave any other value as it is."""
    text = str(value)
    return f"{text[:16]}…" if len(text) == _DIGEST and "/" not in text else text


def _tile(mover: Mover, shown: Mapping[int, Shown], scale: ScoreFormat, of_change: ScoreFormat) -> dict[str, Any]:
    image, name = shown[mover.row], f"row {mover.row}"
    return {
        "thumbnail": image.thumbnail,
        "alt": f"{name}, score {scale.score(mover.before)} before, {scale.score(mover.after)} now",
        "head": of_change.difference(mover.after - mover.before),
        "detail": f"{scale.score(mover.before)} → {scale.score(mover.after)}",
        "path": f"{name}: {image.path}" if image.path is not None else name,
        "caption": image.caption,
    }
