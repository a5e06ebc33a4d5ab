"""The report's page, rendered from what was gathered about the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .._version import __version__
from ..html import ScoreFormat, asset, policy, template
from ..output.run_reader import RunReader
from ..output.score_columns import ScoreColumns
from .comparison import Comparison
from .formatting import Shown, count, images, percent
from .gather import Gathered
from .sections.comparison import compare_section
from .sections.run import run_section
from .sections.scores import group_section, score_sections

GENERATOR = "pscr-engine"
"""The beginning of each page's `generator`, which tells an earlier report from other files."""


@dataclass(frozen=True, slots=True)
class Content:
    """All that the page shows.

    Args:
        run: the run.
        gathered: what was gathered from its rows.
        shown: row → the image, for every image in a gallery.
        score: which of the run's scores the page is about.
        group_column: the manifest's column that scores are grouped by; None without groups.
        comparison: the comparison with another run; None without one.
        notes: what could not be shown, and why.
    """

    run: RunReader
    gathered: Gathered
    shown: Mapping[int, Shown]
    score: ScoreColumns
    group_column: str | None = None
    comparison: Comparison | None = None
    notes: Sequence[str] = ()


def render(content: Content) -> str:
    """Render the page: one HTML file that loads nothing.

    All text of manifests and parts is escaped by the template engine, in attributes and in the embedded
    JSON, too. If that should ever fail, the page's policy still forbids every script, style and request
    but the page's own, which are named by their digests.
    """
    css, js = (asset(str(__package__), name) for name in ("page.css", "page.js"))
    page = template(str(__package__), "page.html.j2")
    return page.render(css=css, js=js, policy=policy(css, js), **_context(content))


def _context(content: Content) -> dict[str, Any]:
    run, gathered = content.run, content.gathered
    shape, column, comparison = gathered.shape, content.group_column, content.comparison
    scale = ScoreFormat()
    if shape is not None:
        scale = ScoreFormat.for_range(float(shape.histogram.axis.low), float(shape.histogram.axis.high))
    context: dict[str, Any] = {
        "generator": f"{GENERATOR} {__version__}",
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "notes": content.notes,
        "rows": gathered.rows,
        "scored": gathered.scored,
        "shape": shape,
        "failures": gathered.failures,
        "reasons": sorted(gathered.failures.reasons.items(), key=lambda item: (-item[1].count, item[0])),
        "score": scale.score,
        "count": count,
        "images": images,
        "percent": percent,
        "galleries": [],
        "groups": None,
        "keep": None,
        "comparison": None,
        **run_section(run, gathered, scale, content.score),
    }
    if shape is not None:
        context |= score_sections(run.path, shape, gathered.scored, content.shown, scale, content.score)
    if column is not None:
        context |= group_section(column, gathered.groups)
    if comparison is not None:
        context["comparison"] = compare_section(run, comparison, content.shown, scale)
    sections = {
        "summary": "Summary",
        "scores": "Scores",
        "uncertainty": shape and "Uncertainty",
        "images": context["galleries"] and "Images",
        "groups": column is not None and f"By {column}",
        "compare": comparison and "Comparison",
        "failures": "Failures",
        "run": "The run",
    }
    return {**context, "sections": [(anchor, title) for anchor, title in sections.items() if title]}
