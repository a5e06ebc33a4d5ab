"""Open a GPU with the library that is installed for it, or say in one line why that is not possible."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import BackendError, MissingDependencyError, one_line
from .device import Device, no_driver


def open_device(index: int = 0) -> Device:
    """Open a GPU, with PyCUDA, or with cuda.bindings where PyCUDA is not installed.

    Args:
        index: which one, from 0.

    Raises:
        MissingDependencyError: neither is installed.
        BackendError: no driver, an old driver, or no such GPU.
    """
    try:
        if has_pycuda():
            from .pycuda_device import PyCudaDevice

            return PyCudaDevice.open(index)
        if has_bindings():
            from .bindings_device import BindingsDevice

            return BindingsDevice.open(index)
    except ImportError as error:  # installed, but without the driver's library, which it is linked with
        raise BackendError(no_driver(one_line(error, 120))) from error
    raise MissingDependencyError("pycuda (or cuda-bindings)", "scoring on a GPU", "gpu")


def has_pycuda() -> bool:
    """Tell whether PyCUDA is installed."""
    return find_spec("pycuda") is not None


def has_bindings() -> bool:
    """Tell whether cuda.bindings is installed."""
    return find_spec("cuda") is not None and find_spec("cuda.bindings") is not None
