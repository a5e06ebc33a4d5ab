"""`device.Device` by PyCUDA, a package that is compiled where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycuda.driver as cuda  # only this module and its tests import it
from numpy.typing import NDArray

from ..errors import BackendError, one_line
from .device import PinnedBuffer, Stream, no_driver, no_room, require_driver, require_index

_NON_BLOCKING = 1


class PyCudaDevice:
    """A GPU, opened with PyCUDA; `device.Device` describes the attributes and methods."""

    def __init__(self, index: int) -> None:
        device = cuda.Device(index)
        self.index = index
        self.name: str = device.name()
        self.compute_capability: tuple[int, int] = device.compute_capability()
        self.driver: int = cuda.get_driver_version()
        self.pci_bus_id: str = device.pci_bus_id()
        self._context = device.retain_primary_context()
        self._kernels: dict[str, _Kernel] = {}

    @classmethod
    def open(cls, index: int) -> PyCudaDevice:
        """Open the GPU `index`.

        Raises:
            BackendError: no driver, an old driver, or no such GPU.
        """
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise BackendError(no_driver(one_line(error, 120))) from error
        require_driver(cuda.get_driver_version())
        require_index(index, count)
        try:
            return cls(index)
        except cuda.Error as error:
            raise BackendError(f"cuda:{index} can't be opened ({one_line(error, 120)}); see nvidia-smi") from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current in this thread while the body runs."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def memory(self) -> tuple[int, int]:
        """Return the free and the total memory, in bytes."""
        free, total = cuda.mem_get_info()
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
        except cuda.MemoryError as error:
            raise no_room(self.name, nbytes, *self.memory()) from error

    def pinned(self, nbytes: int) -> _PinnedBuffer:
        """Allocate page-locked memory of the host."""
        return _PinnedBuffer(nbytes)

    def copy_to_device(self, address: int, source: PinnedBuffer, nbytes: int, stream: Stream, start: int = 0) -> None:
        """Begin to copy `nbytes` of `source`, from byte `start` on, to `address`."""
        cuda.memcpy_htod_async(address, source.array[start : start + nbytes], _own(stream))

    def copy_to_host(self, target: PinnedBuffer, address: int, nbytes: int, stream: Stream, start: int = 0) -> None:
        """Begin to copy `nbytes` from `address` to `target`, from byte `start` on."""
        cuda.memcpy_dtoh_async(target.array[start : start + nbytes], address, _own(stream))

    def copy_on_device(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Begin to copy `nbytes` from the address `source` to the address `target`."""
        cuda.memcpy_dtod_async(target, source, nbytes, _own(stream))

    def kernel(self, image: bytes, name: str, signature: str) -> _Kernel:
        """Load a function of a fatbin, a cubin or PTX, once per name."""
        if name not in self._kernels:  # each loaded module takes memory on the device
            self._kernels[name] = _Kernel(self, image, name, signature)
        return self._kernels[name]


class _Owned:
    """Releases PyCUDA's objects while the device is current, in whatever thread that happens; else they would leak."""

    def __init__(self, device: PyCudaDevice) -> None:
        self._device = device

    def __del__(self) -> None:
        if sys is None or sys.is_finalizing():  # the process ends, and the driver cleans up
            return
        with self._device.current():
            self.__dict__ = {"_device": self._device}


class _Stream(_Owned):
    def __init__(self, device: PyCudaDevice) -> None:
        super().__init__(device)
        self.pycuda = cuda.Stream(_NON_BLOCKING)
        self.handle: int = self.pycuda.handle

    def synchronize(self) -> None:
        self.pycuda.synchronize()


class _Event(_Owned):
    def __init__(self, device: PyCudaDevice) -> None:
        super().__init__(device)
        self._event = cuda.Event(cuda.event_flags.DISABLE_TIMING)

    def record(self, stream: Stream) -> None:
        self._event.record(_own(stream))

    def synchronize(self) -> None:
        self._event.synchronize()

    def block(self, stream: Stream) -> None:
        _own(stream).wait_for_event(self._event)


class _DeviceBuffer:
    def __init__(self, nbytes: int) -> None:
        self._allocation = cuda.mem_alloc(max(1, nbytes))
        self.address, self.nbytes = int(self._allocation), nbytes

    def free(self) -> None:
        self._allocation.free()


class _PinnedBuffer:
    def __init__(self, nbytes: int) -> None:
        self.array: NDArray[np.uint8] = cuda.pagelocked_empty(
            max(1, nbytes), np.uint8, mem_flags=cuda.host_alloc_flags.PORTABLE
        )
        self._allocation: Any = self.array.base
        self.address = self.array.ctypes.data

    def free(self) -> None:
        self._allocation.free()


class _Kernel(_Owned):
    def __init__(self, device: PyCudaDevice, image: bytes, name: str, signature: str) -> None:
        super().__init__(device)
        self._module = cuda.module_from_buffer(image)
        self._function = self._module.get_function(name)
        self._function.prepare(signature)

    def launch(self, grid: tuple[int, int, int], block: int, stream: Stream, *arguments: int) -> None:
        self._function.prepared_async_call(grid, (block, 1, 1), _own(stream), *arguments)


def _own(stream: Stream) -> Any:
    assert isinstance(stream, _Stream)  # PyCUDA can't wrap a stream that is not its own
    return stream.pycuda
