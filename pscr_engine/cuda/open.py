"""Open a GPU, and say in one line why not."""

from __future__ import annotations

from ..errors import BackendError, MissingDependencyError, one_line
from .device import Device, no_driver


def open_device(index: int = 0) -> Device:
    """Open a GPU.

    Args:
        index: which one, from 0.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        BackendError: no driver, an old driver, or no such GPU.
    """
    try:
        from .pycuda_device import PyCudaDevice
    except ModuleNotFoundError as error:
        raise MissingDependencyError(str(error.name), "scoring on a GPU", "gpu") from error
    except ImportError as error:  # installed, but without the driver's library, which it is linked with
        raise BackendError(no_driver(one_line(error, 120))) from error
    return PyCudaDevice.open(index)
