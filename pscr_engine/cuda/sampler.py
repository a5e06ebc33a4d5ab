"""Take patches of decoded images on the device: the tables that the kernel reads, and its launch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..sampling import Sampling
from .device import Device, Stream
from .kernels.load import fatbin

KERNEL = "sample_patches"
SIGNATURE = "PPPPii"
IMAGE = np.dtype([("pixels", np.uint64), ("pitch", np.int64), ("columns", np.int64), ("rows", np.int64)])
TAPS = np.dtype([("first", np.int32), ("weights", np.int32, 3)])

_BLOCK = 256
_BYTES_PER_THREAD = 4
_WEIGHT_ONE = 1 << 22


class DeviceImage(NamedTuple):
    """A decoded image on the device, uint8 [height, width, 3].

    Args:
        address: of its first byte.
        pitch: bytes from row to row.
        height, width: in pixels.
        digest: what random corners depend on, as for `Sampling.corners`.
    """

    address: int
    pitch: int
    height: int
    width: int
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the kernel reads for one batch.

    Args:
        images: `IMAGE` [B].
        taps: `TAPS` [T], of all images that are enlarged.
        corners: int32 [B·D, 2], top and left of each patch in the enlarged image.
    """

    images: NDArray[np.void]
    taps: NDArray[np.void]
    corners: NDArray[np.int32]

    @classmethod
    def build(cls, images: Sequence[DeviceImage], sampling: Sampling, max_pixels: int | None = None) -> Tables:
        """Build the tables for a batch.

        Raises:
            TooSmallError: an image can't be enlarged within `max_pixels`, as `Sampling.fitted_size` finds.
        """
        described = np.empty(len(images), IMAGE)
        corners = np.empty((len(images), sampling.patches, 2), np.int32)
        taps: list[NDArray[np.void]] = []
        used = 0
        for index, image in enumerate(images):
            height, width = sampling.fitted_size(image.height, image.width, max_pixels)
            columns = rows = -1
            if (height, width) != (image.height, image.width):
                columns, rows = used, used + width
                taps += [bilinear_taps(image.width, width), bilinear_taps(image.height, height)]
                used += width + height
            described[index] = (image.address, image.pitch, columns, rows)
            corners[index] = sampling.corners(height, width, image.digest)
        return cls(described, np.concatenate(taps) if taps else np.empty(0, TAPS), corners.reshape(-1, 2))


@lru_cache(maxsize=4096)
def bilinear_taps(size: int, enlarged: int) -> NDArray[np.void]:
    """Compute which pixels, with which weights, make each pixel of an enlarged side: `TAPS` [enlarged].

    The triangle filter of Pillow's resize with its integer weights, so that results are equal to
    the bit (Pillow, src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc).
    """
    out = np.zeros(enlarged, TAPS)
    scale = size / enlarged
    for index in range(enlarged):
        centre = (index + 0.5) * scale
        first = max(0, int(centre - 1 + 0.5))
        end = min(size, int(centre + 1 + 0.5))
        weights = [max(0.0, 1.0 - abs(pixel - centre + 0.5)) for pixel in range(first, end)]
        total = sum(weights)
        out[index]["first"] = first
        for tap, weight in enumerate(weights):
            out[index]["weights"][tap] = math.floor(0.5 + weight / total * _WEIGHT_ONE)
    out.flags.writeable = False
    return out


class DeviceSampler:
    """Launches the kernel that takes patches; its tables are in buffers allocated once.

    Args:
        device: current in this thread.
        sampling: "ops", "nops" or "rps".
        batch_size: images per launch at most.
    """

    def __init__(self, device: Device, sampling: Sampling, batch_size: int) -> None:
        self._device, self._sampling = device, sampling
        self._kernel = device.kernel(fatbin("patches"), KERNEL, SIGNATURE)
        P = sampling.patch_size
        fixed = batch_size * (IMAGE.itemsize + sampling.patches * 8)
        # Images that need more than 5·P taps are enlarged on the host (`stages._ENLARGED_SIDES`).
        self._capacity = fixed + batch_size * 5 * P * TAPS.itemsize
        self._tables = device.allocate(self._capacity)
        self._staging = device.pinned(self._capacity)

    def launch(self, tables: Tables, out: int, stream: Stream) -> None:
        """Begin to write the patches, uint8 [B·D, P, P, 3], to the address `out`.

        The tables are copied first; the caller waits for `stream` before the next launch.

        Raises:
            ValueError: the tables don't fit.
        """
        parts = (tables.images, tables.taps, tables.corners)
        sections = [np.ascontiguousarray(part).view(np.uint8).reshape(-1) for part in parts]
        offsets = np.cumsum([0, *(len(section) for section in sections)]).tolist()
        if offsets[-1] > self._capacity:
            raise ValueError(f"tables of {offsets[-1]} bytes, only {self._capacity} fit")
        for section, offset in zip(sections, offsets, strict=False):
            self._staging.array[offset : offset + len(section)] = section
        self._device.copy_to_device(self._tables.address, self._staging, offsets[-1], stream)
        P, D = self._sampling.patch_size, self._sampling.patches
        blocks = -(-3 * P * P // (_BLOCK * _BYTES_PER_THREAD))
        images, taps, corners = (self._tables.address + offset for offset in offsets[:3])
        grid = (blocks, len(tables.corners), 1)
        self._kernel.launch(grid, _BLOCK, stream, images, taps, corners, out, P, D)

    def free(self) -> None:
        """Give the buffers back."""
        self._tables.free()
        self._staging.free()
