"""Helpers for HTML pages that load nothing: templates, content security policies, and pictures as data URIs."""

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
    """Load the template `templates/NAME` of a package; values are escaped, and a missing value is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def asset(package: str, name: str) -> str:
    """Read a style sheet or a script from a package's `templates` folder."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def policy(style: str, script: str | None = None) -> str:
    """Write a Content-Security-Policy that allows only this style, this script and pictures within the page."""
    scripts = "" if script is None else f"script-src {_digest(script)}; "
    return (
        f"default-src 'none'; {scripts}style-src {_digest(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_uri(image: Image.Image, kind: Literal["JPEG", "PNG"], **options: object) -> str:
    """Encode a picture as a data URI, the source of an `img` element.

    Args:
        image: the picture.
        kind: the file format.
        **options: options of Pillow's `save`.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
