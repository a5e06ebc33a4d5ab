"""The HTML page of explanations: one file that runs no script and loads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from .._version import __version__
from ..html import asset, data_uri, policy, template
from .exemplar_images import thumbnail
from .findings import Findings
from .layout import Figure, lay_out
from .wording import (
    about_exemplars,
    about_model,
    about_patches,
    colour,
    colour_scale,
    distance,
    printable,
    score_format,
)

_IMAGE_SIZE = 1280
_SMALL_IMAGE = 64


def render(all_findings: Iterable[Findings], exemplar_root: Path | None) -> bytes | None:
    """Render a page with a section per explanation, holding one image at a time; return None if there are none."""
    sections = [_section(findings, exemplar_root) for findings in all_findings]
    if not sections:
        return None
    style = asset(str(__package__), "page.css")
    text = template(str(__package__), "page.html.j2").render(
        sections=sections,
        style=style,
        policy=policy(style),
        version=__version__,
    )
    return text.encode()


def _section(findings: Findings, exemplar_root: Path | None) -> dict[str, Any]:
    numbers = score_format(findings.bundle)
    figure = lay_out(findings, numbers)
    height, width = findings.pixels.shape[:2]
    scale = colour_scale(findings)
    return {
        "name": printable(findings.name),
        "width": width,
        "height": height,
        "score": numbers.score(findings.score),
        "spread": numbers.score(findings.score_std),
        "mean": numbers.score(findings.mean_patch_score),
        "image": _data_uri(Image.fromarray(findings.pixels), _IMAGE_SIZE),
        "figure": figure,
        "patches": _bars(findings, figure),
        "legend": [(numbers.difference(value), colour(value, scale)) for value in (-scale, 0, scale)],
        "about_patches": about_patches(findings, numbers),
        "about_exemplars": about_exemplars(findings),
        "about_model": about_model(findings),
        "nearest": [
            {
                "path": printable(exemplar.path),
                "label": numbers.score(exemplar.label),
                "distance": distance(exemplar.distance),
                "delta": numbers.difference(exemplar.delta),
                "score": numbers.score(exemplar.label + exemplar.delta),
                "why_none": image if isinstance(image, str) else None,
                "thumbnail": None if isinstance(image, str) else _data_uri(image, max(image.size)),
            }
            for exemplar in findings.nearest
            for image in (thumbnail(exemplar, exemplar_root),)
        ],
    }


def _bars(findings: Findings, figure: Figure) -> list[dict[str, Any]]:
    """List each patch's mark and the bar of its difference, which goes from the middle of [0, 100] to one side."""
    scale = colour_scale(findings)
    rows = []
    for mark, patch in zip(figure.marks, findings.patches, strict=True):
        end = 50 * (patch.score - findings.score) / scale
        rows.append({"mark": mark, "bar_left": round(50 + min(end, 0), 2), "bar_width": round(abs(end), 2)})
    return rows


def _data_uri(image: Image.Image, size: int) -> str:
    """Encode an image, shrunk to at most size × size pixels, as JPEG, or as PNG where it is small."""
    image = image.copy()
    image.thumbnail((size, size))
    if max(image.size) <= _SMALL_IMAGE:
        return data_uri(image, "PNG")
    return data_uri(image, "JPEG", quality=90, subsampling=0)
