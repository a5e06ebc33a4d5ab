"""Load single images: fetch and decode, for whatever is not a run."""

from __future__ import annotations

from contextlib import closing, nullcontext

from ..records import Query
from .decode import DecodeOptions, decode
from .fetch import Fetcher
from .pillow import pillow_for_a_run


def load_image(query: Query, options: DecodeOptions, fetcher: Fetcher | None = None) -> bytes | None:
    """Fill in `query.pixels` from a file, a URI or bytes; if that can't be done, fail the query.

    Args:
        query: names the image, or holds it.
        options: what images are accepted.
        fetcher: reads it; the caller closes it. None for one of its own, which is what a single image needs.

    Returns:
        The encoded bytes; None where the query holds pixels from the start, or there are none.

    Raises:
        StoreError: an object store is out of reach, or refuses everything.
    """
    with nullcontext(fetcher) if fetcher is not None else closing(Fetcher()) as reader:
        reader.fetch(query)
    encoded = query.data
    with pillow_for_a_run():
        decode(query, options)
    return encoded
