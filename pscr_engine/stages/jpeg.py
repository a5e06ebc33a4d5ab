"""JPEG by libjpeg-turbo's own interface, in place of Pillow's, where the pixels are the same.

Pillow decodes with libjpeg-turbo, too, but keeps four bytes per pixel, and packs and copies them for NumPy. Whether
both give the same pixels is checked once in each process; what is odd about a file is left to Pillow, so that messages
are always Pillow's.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from ..host import MadeOnce, installed_version
from ..records import Pixels

PACKAGE = "simplejpeg"


def decode_jpeg(data: bytes, height: int, width: int) -> Pixels | None:
    """Decode a JPEG that Pillow has opened in mode RGB.

    Args:
        data: the file.
        height: of the image, as Pillow read it.
        width: likewise.

    Returns:
        RGB pixels, uint8 [H, W, 3], equal to Pillow's; None if Pillow is to decode it.
    """
    decoder = _trusted_decoder()
    if decoder is None:
        return None
    try:
        pixels = decoder(data)
    except Exception:  # noqa: BLE001 - also at mere warnings: Pillow says what is wrong, or takes it as it is
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def jpeg_decoder() -> str:
    """Return which decoder JPEGs meet on this host, and its version."""
    name = PACKAGE if _trusted_decoder() is not None else "pillow"
    return f"{name} {installed_version(name)}"


@MadeOnce
def _trusted_decoder() -> Callable[[bytes], Pixels] | None:
    """Return the decoder, if it is installed and its pixels are Pillow's."""
    try:
        import simplejpeg

        def decoder(data: bytes) -> Pixels:
            pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
            return pixels

        same = all(np.array_equal(decoder(data), _by_pillow(data)) for data in _examples())
    except Exception:  # noqa: BLE001 - not installed, or doesn't load or work here: Pillow does
        return None
    return decoder if same else None


def _by_pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image)


def _examples() -> Iterator[bytes]:
    """Yield small JPEGs of each kind whose pixels depend on how a decoder rounds and interpolates."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).resize((83, 61), Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(coarse) + rng.normal(0, 12, (61, 83, 3)), 0, 255).astype(np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            buffer = io.BytesIO()
            Image.fromarray(noisy).save(
                buffer, "JPEG", quality=80, subsampling=subsampling, progressive=progressive, restart_marker_rows=2
            )
            yield buffer.getvalue()
