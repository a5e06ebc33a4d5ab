"""Where the outlines and the badges of the patches go, in pixels of the image."""

from __future__ import annotations

from dataclasses import dataclass

from ..sampling import Box
from .findings import Findings
from .wording import Numbers, colour, colour_scale

# In units: as wide or high as the image is, it measures so many.
_UNITS = 640
_FONT, _HEIGHT, _GAP, _LETTER = 22, 32, 4, 13
_MARGIN = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """A patch's outline, and its badge: its number, then its score.

    Args:
        number: from 1.
        score: as text.
        difference: from the image's score, as text.
        colour: of the difference, as #rrggbb.
        box: the patch.
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
        view: what is to be seen: the image, and badges that stand out over its edge.
        unit: a length that is as long for an image of any size.
        font: size of the badges' letters.
        marks: one per patch.
    """

    view: Box
    unit: float
    font: float
    marks: tuple[Mark, ...]


def lay_out(findings: Findings, numbers: Numbers) -> Figure:
    """Badges at the middle of their patches, or below one another where these coincide."""
    height, width = findings.pixels.shape[:2]
    unit, scale = max(height, width) / _UNITS, colour_scale(findings)
    marks: list[Mark] = []
    for number, patch in enumerate(findings.patches, 1):
        difference = patch.score - findings.score
        score = numbers.score(patch.score)
        split = (len(str(number)) + 1.2) * _LETTER * unit
        badge = _place(patch.box, split + (len(score) + 0.8) * _LETTER * unit, unit, [mark.badge for mark in marks])
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
    shown = [Box(0, 0, width, height), *(mark.badge for mark in marks)]
    margin = _MARGIN * unit
    view = Box(
        min(box.left for box in shown) - margin,
        min(box.top for box in shown) - margin,
        max(box.right for box in shown) + margin,
        max(box.bottom for box in shown) + margin,
    )
    return Figure(view, unit, _FONT * unit, tuple(marks))


def _place(patch: Box, width: float, unit: float, taken: list[Box]) -> Box:
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
