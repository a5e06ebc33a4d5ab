"""Texts on the report's page: formatted numbers, and the captions of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..html import ScoreFormat
from .galleries import Pick
from .thumbnails import Thumbnail


@dataclass(frozen=True, slots=True)
class Shown:
    """An image that the page shows.

    Args:
        path: its path in the parts; None for images without one.
        thumbnail: its small picture.
        caption: the manifest's text for it, if one was asked for.
    """

    path: str | None
    thumbnail: Thumbnail
    caption: str | None = None


def count(value: int) -> str:
    """Format a whole number, such as 1,234,567."""
    return f"{value:,}"


def images(number: int) -> str:
    """Format a number of images, such as "1 image" or "1,234 images"."""
    return f"{number:,} image{'' if number == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """Format a share, such as 12.34%."""
    return f"{part / whole:.2%}" if whole else "0%"


def tile(pick: Pick, shown: Mapping[int, Shown], scale: ScoreFormat) -> dict[str, Any]:
    """Build what the template needs to show an image in a gallery."""
    image = shown[pick.row]
    name = f"row {pick.row}"
    return {
        "thumbnail": image.thumbnail,
        "alt": f"{name}, score {scale.score(pick.score)}",
        "head": scale.score(pick.score),
        "detail": f"± {scale.score(pick.score_std)}",
        "path": f"{name}: {image.path}" if image.path is not None else name,
        "caption": image.caption,
    }
