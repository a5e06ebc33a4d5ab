"""The page: one HTML file that needs nothing else, and may run and load nothing."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from .. import __version__
from .exemplar_images import thumbnail
from .explanation import Explanation
from .layout import Figure, lay_out
from .wording import Numbers, about_exemplars, about_model, about_patches, colour, colour_scale, distance, printable

_IMAGE_SIZE = 1280
_FOLDER = Path(__file__).parent / "templates"


def render(explanations: Iterable[Explanation], exemplar_root: Path | None) -> bytes | None:
    """One section for each. They are taken one by one: a section is smaller than an image. None without any."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    sections = [_section(explanation, exemplar_root) for explanation in explanations]
    if not sections:
        return None
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    text = environment.get_template("page.html.j2").render(
        sections=sections,
        style=style,
        style_digest=digest,
        version=__version__,
    )
    return text.encode()


def _section(explanation: Explanation, exemplar_root: Path | None) -> dict[str, Any]:
    numbers = Numbers(explanation.bundle)
    figure = lay_out(explanation, numbers)
    height, width = explanation.pixels.shape[:2]
    scale = colour_scale(explanation)
    return {
        "name": printable(explanation.name),
        "width": width,
        "height": height,
        "score": numbers.score(explanation.score),
        "spread": numbers.score(explanation.score_std),
        "mean": numbers.score(explanation.mean_patch_score),
        "image": _data_uri(Image.fromarray(explanation.pixels), _IMAGE_SIZE),
        "figure": figure,
        "patches": _bars(explanation, figure),
        "legend": [(numbers.difference(value), colour(value, scale)) for value in (-scale, 0, scale)],
        "about_patches": about_patches(explanation, numbers),
        "about_exemplars": about_exemplars(explanation),
        "about_model": about_model(explanation),
        "nearest": [
            {
                "path": printable(exemplar.path),
                "label": numbers.score(exemplar.label),
                "distance": distance(exemplar.distance),
                "delta": numbers.difference(exemplar.delta),
                "score": numbers.score(exemplar.label + exemplar.delta),
                "why_none": found if isinstance(found, str) else None,
                "thumbnail": None if isinstance(found, str) else _data_uri(found, max(found.size)),
            }
            for exemplar in explanation.nearest
            for found in (thumbnail(exemplar, exemplar_root),)
        ],
    }


def _bars(explanation: Explanation, figure: Figure) -> list[dict[str, Any]]:
    """Each patch's row: its mark, and the bar of its difference, from the middle of [0, 100] to one side."""
    scale = colour_scale(explanation)
    rows = []
    for mark, patch in zip(figure.marks, explanation.patches, strict=True):
        end = 50 * (patch.score - explanation.score) / scale
        rows.append({"mark": mark, "bar_left": round(50 + min(end, 0), 2), "bar_width": round(abs(end), 2)})
    return rows


def _data_uri(image: Image.Image, size: int) -> str:
    """JPEG, or PNG where that is small, of at most size × size pixels."""
    image = image.copy()
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    if max(image.size) <= 64:
        image.save(buffer, "PNG")
        kind = "png"
    else:
        image.save(buffer, "JPEG", quality=90, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
