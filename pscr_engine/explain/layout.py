"""The layout of an explained image: outlines and badges of its patches, in pixels of the image."""

from __future__ import annotations

from dataclasses import dataclass

from ..html import ScoreFormat
from ..sampling import Box
from .findings import Findings
from .wording import colour, colour_scale

# The longer side of an image measures so many units; the lengths below are in units.
_UNITS = 640
_FONT, _HEIGHT, _GAP, _LETTER = 22, 32, 4, 13
_MARGIN = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """A patch's outline, and its badge: its number, then its score.

    Args:
        number: the patch's number, from 1.
        score: its score, as text.
        difference: its score less the image's, as text.
        colour: colour of the difference, as #rrggbb.
        box: the patch's outline.
        badge: where number and score are written.
        split: where in the badge the number ends and the score begins.
    """

    number: int
    score: str
    difference: str
    colour: str
    box: Box
    badge: Box
    split: float


@dataclass(frozen=True, slots=True)
class Figure:
    """An image with its marks.

    Args:
        view: the visible area: the image, and badges that reach beyond its edge.
        unit: a fixed share of the image's longer side, in which widths of lines are given.
        font: size of the badges' letters.
        marks: one per patch.
    """

    view: Box
    unit: float
    font: float
    marks: tuple[Mark, ...]


def lay_out(findings: Findings, numbers: ScoreFormat) -> Figure:
    """Place each badge at the middle of its patch, or below the earlier badges that it would overlap."""
    height, width = findings.pixels.shape[:2]
    unit, scale = max(height, width) / _UNITS, colour_scale(findings)
    marks: list[Mark] = []
    for number, patch in enumerate(findings.patches, 1):
        difference = patch.score - findings.score
        score = numbers.score(patch.score)
        split = (len(str(number)) + 1.2) * _LETTER * unit
        badge = _badge(patch.box, split + (len(score) + 0.8) * _LETTER * unit, unit, [mark.badge for mark in marks])
        marks.append(
            Mark(
                number,
                score,
                numbers.difference(difference),
                colour(difference, scale),
                patch.box,
                badge,
                badge.left + split,
            )
        )
    boxes = [Box(0, 0, width, height), *(mark.badge for mark in marks)]
    margin = _MARGIN * unit
    view = Box(
        min(box.left for box in boxes) - margin,
        min(box.top for box in boxes) - margin,
        max(box.right for box in boxes) + margin,
        max(box.bottom for box in boxes) + margin,
    )
    return Figure(view, unit, _FONT * unit, tuple(marks))


def _badge(patch: Box, width: float, unit: float, taken: list[Box]) -> Box:
    left, top = (patch.left + patch.right - width) / 2, (patch.top + patch.bottom - _HEIGHT * unit) / 2
    while True:
        badge = Box(left, top, left + width, top + _HEIGHT * unit)
        below = [other.bottom for other in taken if _overlap(badge, other)]
        if not below:
            return badge
        top = max(below) + _GAP * unit


def _overlap(one: Box, other: Box) -> bool:
    across = one.left < other.right and other.left < one.right
    return across and one.top < other.bottom and other.top < one.bottom
