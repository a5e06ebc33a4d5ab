"""Decode: from encoded bytes to RGB pixels, as the PSCR authors' implementation does it.

That is `PIL.Image.open(file).convert("RGB")`: no EXIF rotation, the first frame of an animation,
alpha dropped, CMYK converted by Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ..host import MadeOnce
from ..records import Pixels, Query, Status
from ..sampling import Sampling, content_digest
from .jpeg import decode_jpeg

# An allow-list: Pillow would run Ghostscript to open a PostScript file, takes a text for a TGA (which
# has no signature), and decodes an ICO before its size is known.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

# As Pillow names them; it takes a JPEG with several images for one of its own kind.
_JPEG_FORMATS = ("JPEG", "MPO")

# What the columns `width` and `height` hold.
_MAX_SIDE = 2**31 - 1

DEFAULT_MAX_PIXELS = 89_478_485
"""A quarter of a gigabyte of RGB; also the size at which Pillow begins to warn."""


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What is accepted.

    Args:
        max_pixels: images with more pixels (width × height) are `too_large`, seen from their
            header, before memory is spent on them.
        patch_size: P; None to accept any size.
        small_images: what happens to an image with a side below `patch_size`.
        digest: whether to fill in `Query.digest`.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    patch_size: int | None = None
    small_images: Literal["upscale", "error"] = "upscale"
    digest: bool = False

    @classmethod
    def for_sampling(
        cls, sampling: Sampling, max_pixels: int, small_images: Literal["upscale", "error"]
    ) -> DecodeOptions:
        """Return what images a sampling can take, within the user's limits."""
        return cls(max_pixels, sampling.patch_size, small_images, digest=sampling.name == "rps")


def decode(query: Query, options: DecodeOptions) -> None:
    """Turn `query.data` into `query.pixels`, with `width` and `height`."""
    if not query.ok:
        return
    if query.pixels is None and query.data is not None:
        if not query.data:
            query.fail(Status.UNDECODABLE, "the file is empty")
            return
        if options.digest:
            query.digest = content_digest(query.data)
        query.pixels = _open(query, query.data, options)
        query.data = None
    elif query.pixels is not None:
        query.height, query.width = query.pixels.shape[:2]
        check_size(query, options)
        if query.ok and options.digest:
            query.digest = content_digest(query.pixels)


def _open(query: Query, data: bytes, options: DecodeOptions) -> Pixels | None:
    try:
        with Image.open(BytesIO(data), formats=_available_formats()) as image:
            query.width, query.height = image.size
            check_size(query, options)
            if not query.ok:
                return None
            if image.mode != "RGB":
                return np.asarray(image.convert("RGB"))
            pixels = decode_jpeg(data, query.height, query.width) if image.format in _JPEG_FORMATS else None
            # Pillow's conversion from RGB to RGB would only copy.
            return np.asarray(image) if pixels is None else pixels
    except UnidentifiedImageError:
        query.fail(Status.UNDECODABLE, "not an image in a known format")
    except Image.DecompressionBombError as error:
        query.fail(Status.TOO_LARGE, str(error))
    except MemoryError:
        query.fail(Status.TOO_LARGE, "not enough memory to decode it")
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken data; a bad image is a row
        query.fail(*why_undecodable(error))
    return None


def why_undecodable(error: Exception) -> tuple[Status, str]:
    """Return status and reason of an image at which Pillow has raised `error`."""
    if "MAX_TEXT_" in str(error):  # the names of Pillow's limits tell users nothing
        limit = PngImagePlugin.MAX_TEXT_CHUNK / 2**20
        return Status.TOO_LARGE, f"its metadata (texts, colour profile) unpacks to more than {limit:g} MiB"
    return Status.UNDECODABLE, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@MadeOnce
def _available_formats() -> tuple[str, ...]:
    """Return `FORMATS` without those that this build of Pillow lacks."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_size(query: Query, options: DecodeOptions) -> None:
    """Fail a query whose `width` and `height` are outside the limits."""
    assert query.width is not None
    assert query.height is not None
    width, height, P = query.width, query.height, options.patch_size
    if width < 1 or height < 1:
        query.fail(Status.UNDECODABLE, f"{width}×{height} pixels: an empty image")
    elif width * height > options.max_pixels or max(width, height) > _MAX_SIDE:
        query.fail(
            Status.TOO_LARGE,
            f"{width}×{height} is {width * height:,} pixels, over the limit of {options.max_pixels:,} (max_pixels)",
        )
        if max(width, height) > _MAX_SIDE:
            query.width = query.height = None  # a damaged header's: `error` has them
    elif P is not None and min(width, height) < P and options.small_images == "error":
        query.fail(Status.TOO_SMALL, f"{width}×{height}: a side is below the patch size of {P}")
