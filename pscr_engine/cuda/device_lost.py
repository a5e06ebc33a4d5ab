"""Tell whether an error on a GPU means that the GPU no longer answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DeviceLostError, one_line
from .device import Device, DeviceMemoryError


@contextmanager
def raise_if_device_lost(device: Device) -> Iterator[None]:
    """Turn an error of the body into DeviceLostError if the GPU no longer answers; let other errors pass.

    Raises:
        DeviceLostError: every call to the GPU fails now (after an Xid, uncorrectable memory, off the bus).
    """
    try:
        yield
    except (DeviceLostError, DeviceMemoryError):
        raise
    except Exception as error:
        try:
            with device.current():
                device.stream().synchronize()
        except Exception as reason:  # noqa: BLE001 - each library has its own
            raise DeviceLostError(
                f"cuda:{device.index} ({device.name}) has dropped out: {one_line(reason, 120)}; look for "
                "Xid errors with dmesg, and give the same command again to go on"
            ) from error
        raise
