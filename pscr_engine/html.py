"""Helpers for HTML pages that load nothing: templates, content security policies, and pictures as data URIs."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from .errors import MissingDependencyError

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image


def require_jinja2() -> None:
    """Raise MissingDependencyError unless pages can be made; asked before the work for one begins."""
    if find_spec("jinja2") is None:
        raise MissingDependencyError("jinja2", "an HTML page", "report")


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


@dataclass(frozen=True, slots=True)
class ScoreFormat:
    """How scores are written: with as many digits as their range needs.

    Args:
        digits: how many, after the point.
    """

    digits: int = 3

    @classmethod
    def for_range(cls, low: float, high: float) -> ScoreFormat:
        """Choose the digits so that a thousandth of the range shows; three if the range is empty."""
        return cls(min(max(3 - math.floor(math.log10(high - low)), 0), 9) if high > low else 3)

    def score(self, value: float) -> str:
        """Format a score, such as 3.421."""
        return f"{value:z.{self.digits}f}".replace("-", "\N{MINUS SIGN}")

    def difference(self, value: float) -> str:
        """Format a difference of scores with its sign, such as +0.035 or ±0.000."""
        text = f"{value:+z.{self.digits}f}"
        return "±" + text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
