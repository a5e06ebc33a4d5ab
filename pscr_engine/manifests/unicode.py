"""Conversion to text that Arrow columns can hold, whatever bytes it came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa


def text_array(values: Sequence[Any]) -> pa.Array:
    """Make a column of text. What is not Unicode becomes question marks."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([utf8(value) for value in values], pa.string())


def utf8(text: Any) -> str | None:
    """Return text that Parquet can hold: what is not Unicode becomes question marks."""
    if text is None:
        return None
    try:
        return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can express
        return str(text).encode("utf-8", "replace").decode()


def as_text(value: Any) -> str | None:
    """Return an identifier of a JSON list as text, what is none itself as JSON: lines need not agree on a type."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
