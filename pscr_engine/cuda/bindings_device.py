"""`device.Device` by cuda.bindings, NVIDIA's own package, which installs without a compiler: for hosts without PyCUDA.

It calls the driver's functions directly: the primary context is pushed and popped per thread, as PyCUDA does it, and
addresses are plain integers.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cuda.bindings import driver as cuda
from numpy.typing import NDArray

from ..errors import BackendError, one_line
from .device import PinnedBuffer, Stream, no_driver, no_room, require_driver, require_index

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int}


class _CudaError(BackendError):
    """An error that a function of the driver returned.

    Args:
        message: which function failed, and why.
        code: its CUresult.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


def _text(code: int) -> str:
    answer = cuda.cuGetErrorString(cuda.CUresult(code))
    return str(answer[1].decode()) if int(answer[0]) == 0 and answer[1] else f"CUDA error {code}"


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the driver and return its result: None, a value, or a tuple of several."""
    code, *values = function(*arguments)
    if int(code):
        raise _CudaError(f"{function.__name__} failed: {_text(int(code))}", int(code))
    return values[0] if len(values) == 1 else tuple(values) or None


class BindingsDevice:
    """A GPU, opened with cuda.bindings; `device.Device` describes the attributes and methods."""

    def __init__(self, index: int) -> None:
        device = _call(cuda.cuDeviceGet, index)
        attribute = cuda.CUdevice_attribute
        self.index = index
        self.name: str = _call(cuda.cuDeviceGetName, 128, device).split(b"\0")[0].decode()
        self.compute_capability: tuple[int, int] = (
            _call(cuda.cuDeviceGetAttribute, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device),
            _call(cuda.cuDeviceGetAttribute, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device),
        )
        self.driver: int = _call(cuda.cuDriverGetVersion)
        self.pci_bus_id: str = _call(cuda.cuDeviceGetPCIBusId, 32, device).split(b"\0")[0].decode()
        self._context = _call(cuda.cuDevicePrimaryCtxRetain, device)
        self._kernels: dict[str, _Kernel] = {}

    @classmethod
    def open(cls, index: int) -> BindingsDevice:
        """Open the GPU `index`.

        Raises:
            BackendError: no driver, an old driver, or no such GPU.
        """
        try:
            _call(cuda.cuInit, 0)
            count = _call(cuda.cuDeviceGetCount)
        except (BackendError, RuntimeError) as error:  # RuntimeError: there is no driver library
            raise BackendError(no_driver(one_line(error, 120))) from error
        require_driver(_call(cuda.cuDriverGetVersion))
        require_index(index, count)
        return cls(index)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current in this thread while the body runs."""
        _call(cuda.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            _call(cuda.cuCtxPopCurrent)

    def memory(self) -> tuple[int, int]:
        """Return the free and the total memory, in bytes."""
        free, total = _call(cuda.cuMemGetInfo)
        return int(free), int(total)

    def stream(self) -> _Stream:
        """Create a stream that does not wait for the default stream."""
        return _Stream(self)

    def event(self) -> _Event:
        """Create an event without timing."""
        return _Event(self)

    def allocate(self, nbytes: int) -> _DeviceBuffer:
        """Allocate memory on the device; raise DeviceMemoryError if there is not enough."""
        try:
            return _DeviceBuffer(nbytes)
        except _CudaError as error:
            if error.code != _OUT_OF_MEMORY:
                raise
            raise no_room(self.name, nbytes, *self.memory()) from error

    def pinned(self, nbytes: int) -> _PinnedBuffer:
        """Allocate page-locked memory of the host."""
        return _PinnedBuffer(nbytes)

    def copy_to_device(self, address: int, source: PinnedBuffer, nbytes: int, stream: Stream, start: int = 0) -> None:
        """Begin to copy `nbytes` of `source`, from byte `start` on, to `address`."""
        _call(cuda.cuMemcpyHtoDAsync, address, source.address + start, nbytes, stream.handle)

    def copy_to_host(self, target: PinnedBuffer, address: int, nbytes: int, stream: Stream, start: int = 0) -> None:
        """Begin to copy `nbytes` from `address` to `target`, from byte `start` on."""
        _call(cuda.cuMemcpyDtoHAsync, target.address + start, address, nbytes, stream.handle)

    def copy_on_device(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Begin to copy `nbytes` from the address `source` to the address `target`."""
        _call(cuda.cuMemcpyDtoDAsync, target, source, nbytes, stream.handle)

    def kernel(self, image: bytes, name: str, signature: str) -> _Kernel:
        """Load a function of a fatbin, a cubin or PTX, once per name."""
        if name not in self._kernels:  # each loaded module takes memory on the device
            self._kernels[name] = _Kernel(image, name, signature)
        return self._kernels[name]


class _Handle:
    """A stream or an event; the thread that destroys it makes the device current for that."""

    def __init__(self, device: BindingsDevice, native: Any, destroy: Callable[..., Any]) -> None:
        self._device, self._destroy = device, destroy
        self.native, self.handle = native, int(native)

    def __del__(self) -> None:
        if sys is not None and not sys.is_finalizing():
            with self._device.current():
                self._destroy(self.native)


class _Stream(_Handle):
    def __init__(self, device: BindingsDevice) -> None:
        super().__init__(device, _call(cuda.cuStreamCreate, _NON_BLOCKING), cuda.cuStreamDestroy)

    def synchronize(self) -> None:
        _call(cuda.cuStreamSynchronize, self.native)


class _Event(_Handle):
    def __init__(self, device: BindingsDevice) -> None:
        super().__init__(device, _call(cuda.cuEventCreate, _NO_TIMING), cuda.cuEventDestroy)

    def record(self, stream: Stream) -> None:
        _call(cuda.cuEventRecord, self.native, stream.handle)

    def synchronize(self) -> None:
        _call(cuda.cuEventSynchronize, self.native)

    def block(self, stream: Stream) -> None:
        _call(cuda.cuStreamWaitEvent, stream.handle, self.native, 0)


class _DeviceBuffer:
    def __init__(self, nbytes: int) -> None:
        self.address, self.nbytes = int(_call(cuda.cuMemAlloc, max(1, nbytes))), nbytes

    def free(self) -> None:
        _call(cuda.cuMemFree, self.address)


class _PinnedBuffer:
    def __init__(self, nbytes: int) -> None:
        self.address = int(_call(cuda.cuMemHostAlloc, max(1, nbytes), _PORTABLE))
        memory = (ctypes.c_uint8 * max(1, nbytes)).from_address(self.address)
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)

    def free(self) -> None:
        _call(cuda.cuMemFreeHost, self.address)


class _Kernel:
    def __init__(self, image: bytes, name: str, signature: str) -> None:
        self._module = _call(cuda.cuModuleLoadData, image)
        self._function = _call(cuda.cuModuleGetFunction, self._module, name.encode())
        self._types = tuple(_TYPES[letter] for letter in signature)

    def launch(self, grid: tuple[int, int, int], block: int, stream: Stream, *arguments: int) -> None:
        parameters = (arguments, self._types)
        _call(cuda.cuLaunchKernel, self._function, *grid, block, 1, 1, 0, stream.handle, parameters, 0)
