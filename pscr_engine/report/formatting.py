"""How numbers and images are put into words on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log10
from typing import Any

from .axis import Axis
from .galleries import Pick
from .thumbnails import Thumbnail


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of an image that is shown.

    Args:
        path: as in the parts; None for images without one.
        thumbnail: its small picture.
        caption: the manifest's text for it, if one was asked for.
    """

    path: str | None
    thumbnail: Thumbnail
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """Writes scores with as many digits as their spread asks for.

    Args:
        digits: after the point.
    """

    digits: int = 3

    @classmethod
    def of(cls, axis: Axis) -> Scale:
        """A thousandth of the axis shows."""
        return cls(min(9, max(1, ceil(-log10(float(axis.high - axis.low) / 1000)))))

    def score(self, value: float) -> str:
        """3.142."""
        return f"{value:.{self.digits}f}"

    def signed(self, value: float) -> str:
        """+3.142."""
        return f"{value:+.{self.digits}f}"


def count(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def images(number: int) -> str:
    """1 image, 1,234 images."""
    return f"{number:,} image{'' if number == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """12.34%."""
    return f"{part / whole:.2%}" if whole else "0%"


def tile(pick: Pick, shown: Mapping[int, Shown], scale: Scale) -> dict[str, Any]:
    """What a gallery shows of an image."""
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
