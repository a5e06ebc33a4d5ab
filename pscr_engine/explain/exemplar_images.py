"""Thumbnails of the exemplars' own images, found by path: a bundle has only their paths and digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from ..records import Query, Status
from ..stages.decode import DecodeOptions, decode
from ..stages.fetch import read_file
from ..stages.pillow import pillow_for_a_run
from .findings import NearExemplar

THUMBNAIL_SIZE = 256


def thumbnail(exemplar: NearExemplar, root: Path | None) -> Image.Image | str:
    """Return a small copy of the exemplar's image, or in a few words why there is none.

    Only the file that the bundle was made from is accepted: its SHA-256 must be the exemplar's.

    Args:
        exemplar: the exemplar.
        root: folder that its path is relative to; None for the working directory.
    """
    location = str(exemplar.path if root is None else root / exemplar.path)
    query = Query(exemplar.index, location=location)
    read_file(query)
    if query.data is None:
        return "image not found" if query.status is Status.MISSING else "image can't be read"
    if hashlib.sha256(query.data).hexdigest() != exemplar.sha256:
        return "another file is there"
    with pillow_for_a_run():
        decode(query, DecodeOptions())
    if query.pixels is None:
        return "image can't be decoded"
    image = Image.fromarray(query.pixels)
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return image
