"""A guard against wrong pixels: some images that the GPU decodes are also decoded by Pillow, and compared.

Decoders in hardware have returned wrong pixels and reported success (pytorch/vision#9606,
MrNeRF/LichtFeld-Studio#1924): only a comparison of pixels shows it.
"""

from __future__ import annotations

import io
import logging

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..records import Pixels

log = logging.getLogger("pscr_engine")

_FIRST = 16
_GIVEN_UP_AFTER = 3
_BLOCK = 16
# Mean difference allowed, in levels of 255, of a block of 16×16 pixels. Chroma that is repeated where Pillow
# interpolates makes up to 11 in AGIQA-3K's images, 30 in the worst made-up one; a block of another image 50 to 200.
TOLERANCE = 32.0


class DecodingCheck:
    """Chooses which images are compared, counts the wrong ones, and says when to stop using the GPU's decoder.

    Args:
        rate: share of the images to compare, 0 to 1, after the first 16, which all are; 0 for none at all.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._first = _FIRST if rate else 0
        self._due = 0.0
        self.wrong = 0

    @property
    def given_up(self) -> bool:
        """Tell whether so many images were wrong that the decoder is not used any more."""
        return self.wrong >= _GIVEN_UP_AFTER

    def wanted(self, count: int) -> list[int]:
        """Choose which of the next `count` images to compare, and return their indices."""
        chosen = []
        for index in range(count):
            if self._first:
                self._first -= 1
                chosen.append(index)
                continue
            self._due += self._rate
            if self._due >= 1:
                self._due -= 1
                chosen.append(index)
        return chosen

    def is_wrong(self, pixels: Pixels, encoded: bytes, name: str) -> bool:
        """Tell whether an image differs from what Pillow makes of its bytes; log and count it if so.

        Args:
            pixels: uint8 [H, W, 3], from the decoder.
            encoded: the file's bytes.
            name: the image's, for the message.
        """
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                expected = np.asarray(image.convert("RGB"))
        except Exception:  # noqa: BLE001 - what Pillow refuses is for the host's decoder to judge
            return True
        difference = largest_difference(pixels, expected)
        if difference <= TOLERANCE:
            return False
        self.wrong += 1
        action = "this GPU's decoder is not used any more in this run" if self.given_up else "Pillow's pixels are taken"
        log.warning(
            "%s: the GPU's decoder got it wrong (%.0f levels off in a block of pixels); %s", name, difference, action
        )
        return True


def largest_difference(pixels: Pixels, expected: Pixels) -> float:
    """Return the mean absolute difference of the worst block of 16×16 pixels, in levels; infinite for other sizes."""
    if pixels.shape != expected.shape:
        return float("inf")
    difference: NDArray[np.float32] = np.abs(pixels.astype(np.int16) - expected).mean(2, dtype=np.float32)
    rows, columns = (np.arange(0, side, _BLOCK) for side in difference.shape)
    sums = np.add.reduceat(np.add.reduceat(difference, rows, 0), columns, 1)
    sizes = np.outer(
        *(np.diff([*starts, side]) for starts, side in zip((rows, columns), difference.shape, strict=True))
    )
    return float((sums / sizes).max())
