"""The exemplar cache, kept in the device's memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundle import Exemplars
from .device import Device, DeviceBuffer


@dataclass(frozen=True, slots=True)
class ResidentExemplars:
    """The part of the cache that the scoring graph reads.

    Args:
        hidden: float32 [M, C].
        labels: float32 [M].
        count: M.
    """

    hidden: DeviceBuffer
    labels: DeviceBuffer
    count: int

    @classmethod
    def upload(cls, device: Device, exemplars: Exemplars) -> ResidentExemplars:
        """Copy the exemplars to the device, which is current in this thread.

        Raises:
            DeviceMemoryError: the device has too little memory.
        """
        return cls(_upload(device, exemplars.hidden), _upload(device, exemplars.labels), exemplars.count)

    def free(self) -> None:
        """Give the memory back."""
        self.hidden.free()
        self.labels.free()


def _upload(device: Device, array: NDArray[np.float32]) -> DeviceBuffer:
    data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    buffer, staging, stream = device.allocate(data.nbytes), device.pinned(data.nbytes), device.stream()
    staging.array[: data.nbytes] = data
    device.copy_to_device(buffer.address, staging, data.nbytes, stream)
    stream.synchronize()
    staging.free()
    return buffer
