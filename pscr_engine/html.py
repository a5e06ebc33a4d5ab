"""Build HTML pages that load nothing: the template engine, the digests that a page's policy names, pictures as text."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image


def template(package: str, name: str) -> Template:
    """Load `templates/NAME` of a package, with all values escaped and none allowed to be missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def asset(package: str, name: str) -> str:
    """Read a style or a script from a package's `templates`."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def policy(style: str, script: str | None = None) -> str:
    """Write a Content-Security-Policy that forbids all but this style, this script and pictures within the page."""
    scripts = "" if script is None else f"script-src {_digest(script)}; "
    return (
        f"default-src 'none'; {scripts}style-src {_digest(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_uri(image: Image.Image, kind: Literal["JPEG", "PNG"], **options: object) -> str:
    """Encode a picture as the text of an `img` element's source.

    Args:
        image: the picture.
        kind: its format.
        **options: of Pillow's `save`.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
