"""Images that a list holds as text: `data:` URIs, and base64 by itself."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

_HEAD = re.compile(r"data:image/[\w.+-]+(?:;[\w.+-]+=[\w.+%-]*)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
# No system opens a path as long as that.
_LONGEST_PATH = 4096
_SHOWN = 40


class InlineImage(NamedTuple):
    """What a text holds: a short form of it, and the image's bytes or what is wrong."""

    short: str
    data: bytes | None = None
    trouble: str = ""


def inline_image(text: str) -> InlineImage | None:
    """Return the image that a text holds; None if it is a path or a URI of something else."""
    if text[:5].lower() == "data:":
        short = _short(text)
        head = _HEAD.match(text)
        if head is None:
            return InlineImage(short, trouble="a data: URI that is no image in base64: data:image/TYPE;base64,...")
        encoded = text[head.end() :]
        try:
            data = base64.b64decode(unquote_to_bytes(encoded) if "%" in encoded else encoded, validate=True)
        except (binascii.Error, ValueError):
            return InlineImage(short, trouble="a data: URI whose base64 is malformed")
        return InlineImage(short, data) if data else InlineImage(short, trouble="a data: URI without an image")
    if len(text) <= _LONGEST_PATH:
        return None
    if _BASE64.fullmatch(text):
        return InlineImage(
            _short(text), trouble="base64, not a path; write data:image/TYPE;base64, before it, or store the bytes"
        )
    return None


def _short(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"
