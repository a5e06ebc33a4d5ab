"""A device through PyCUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycuda.driver as cuda  # only this module and its tests import it
from numpy.typing import NDArray

from ..errors import BackendError, one_line
from .device import DeviceMemoryError, PinnedBuffer, Stream, no_driver, require_index

_NON_BLOCKING = 1


class PyCudaDevice:
    """See `device.Device`."""

    def __init__(self, index: int) -> None:
        device = cuda.Device(index)
        self.index = index
        self.name: str = device.name()
        self.compute_capability: tuple[int, int] = device.compute_capability()
        self.driver: int = cuda.get_driver_version()
        self._context = device.retain_primary_context()

    @classmethod
    def open(cls, index: int) -> PyCudaDevice:
        """See `open.open_device`."""
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise BackendError(no_driver(one_line(error, 120))) from error
        require_index(index, count)
        return cls(index)

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `device.Device`."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def memory(self) -> tuple[int, int]:
        """See `device.Device`."""
        free, total = cuda.mem_get_info()
        return int(free), int(total)

    def stream(self) -> _Stream:
        """See `device.Device`."""
        return _Stream()

    def event(self) -> _Event:
        """See `device.Device`."""
        return _Event()

    def allocate(self, nbytes: int) -> _DeviceBuffer:
        """See `device.Device`."""
        try:
            return _DeviceBuffer(nbytes)
        except cuda.MemoryError as error:
            free, total = self.memory()
            raise DeviceMemoryError(
                f"{self.name}: {nbytes / 1e9:.2f} GB asked for, {free / 1e9:.2f} of {total / 1e9:.1f} GB free; "
                "use a smaller --batch-size"
            ) from error

    def pinned(self, nbytes: int) -> _PinnedBuffer:
        """See `device.Device`."""
        return _PinnedBuffer(nbytes)

    def copy_to_device(self, address: int, source: PinnedBuffer, nbytes: int, stream: Stream) -> None:
        """See `device.Device`."""
        cuda.memcpy_htod_async(address, source.array[:nbytes], _own(stream))

    def copy_to_host(self, target: PinnedBuffer, address: int, nbytes: int, stream: Stream) -> None:
        """See `device.Device`."""
        cuda.memcpy_dtoh_async(target.array[:nbytes], address, _own(stream))

    def kernel(self, image: bytes, name: str, signature: str) -> _Kernel:
        """See `device.Device`."""
        return _Kernel(image, name, signature)


class _Stream:
    def __init__(self) -> None:
        self.pycuda = cuda.Stream(_NON_BLOCKING)
        self.handle: int = self.pycuda.handle

    def synchronize(self) -> None:
        self.pycuda.synchronize()


class _Event:
    def __init__(self) -> None:
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


class _Kernel:
    def __init__(self, image: bytes, name: str, signature: str) -> None:
        self._module = cuda.module_from_buffer(image)
        self._function = self._module.get_function(name)
        self._function.prepare(signature)

    def launch(self, grid: tuple[int, int, int], block: int, stream: Stream, *arguments: int) -> None:
        self._function.prepared_async_call(grid, (block, 1, 1), _own(stream), *arguments)


def _own(stream: Stream) -> Any:
    assert isinstance(stream, _Stream)  # PyCUDA can't wrap a stream that is not its own
    return stream.pycuda
