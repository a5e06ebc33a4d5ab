"""The interface of a GPU: its memory, streams, events and kernels, as plain integers that any library takes.

Implemented with PyCUDA (`pycuda_device`) and with cuda.bindings (`bindings_device`), in the device's primary context,
which ONNX Runtime, PyTorch and nvImageCodec share; `Device.current` makes it current in a thread.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, option

_OLDEST_DRIVER = 13000


class DeviceBuffer(Protocol):
    """Memory on the device.

    Attributes:
        address: where it is, aligned to 256 bytes.
        nbytes: its size.
    """

    address: int
    nbytes: int

    def free(self) -> None:
        """Give the memory back. Nothing may be using it."""
        ...


class PinnedBuffer(Protocol):
    """Page-locked memory of the host: copies to and from it run beside the processor.

    Attributes:
        array: uint8 [nbytes], the memory itself.
        address: where it is.
    """

    array: NDArray[np.uint8]
    address: int

    def free(self) -> None:
        """Give the memory back. Nothing may be using it."""
        ...


class Stream(Protocol):
    """A queue of work on the device: done in order, and side by side with other streams.

    Attributes:
        handle: CUstream as an integer; never 0, the default stream, which waits for all others.
    """

    handle: int

    def synchronize(self) -> None:
        """Wait until all work in the stream is done."""
        ...


class Event(Protocol):
    """A point in a stream's work."""

    def record(self, stream: Stream) -> None:
        """Place the event behind all work that `stream` has now."""
        ...

    def synchronize(self) -> None:
        """Wait until the event is reached."""
        ...

    def block(self, stream: Stream) -> None:
        """Make `stream` wait for the event on the device; the host does not wait."""
        ...


class Kernel(Protocol):
    """A function on the device."""

    def launch(self, grid: tuple[int, int, int], block: int, stream: Stream, *arguments: int) -> None:
        """Start the function, with `block` threads per block; the kernel's `signature` gives the arguments' types."""
        ...


class Device(Protocol):
    """One GPU, through its primary context.

    Attributes:
        index: as in "cuda:INDEX".
        name: of the product, "NVIDIA H200" for example.
        compute_capability: (9, 0) for example.
        driver: the version of CUDA that the driver supports, 13000 for 13.0.
        pci_bus_id: "0000:17:00.0" for example.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    driver: int
    pci_bus_id: str

    def current(self) -> AbstractContextManager[None]:
        """Make the device current in this thread while the body runs. All other methods need that."""
        ...

    def memory(self) -> tuple[int, int]:
        """Return the free and the total memory, in bytes."""
        ...

    def stream(self) -> Stream:
        """Create a stream that does not wait for the default stream."""
        ...

    def event(self) -> Event:
        """Create an event without timing."""
        ...

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Allocate memory on the device.

        Raises:
            DeviceMemoryError: there is not enough.
        """
        ...

    def pinned(self, nbytes: int) -> PinnedBuffer:
        """Allocate page-locked memory of the host."""
        ...

    def copy_to_device(self, address: int, source: PinnedBuffer, nbytes: int, stream: Stream, start: int = 0) -> None:
        """Begin to copy `nbytes` of `source`, from byte `start` on, to `address`."""
        ...

    def copy_to_host(self, target: PinnedBuffer, address: int, nbytes: int, stream: Stream, start: int = 0) -> None:
        """Begin to copy `nbytes` from `address` to `target`, from byte `start` on."""
        ...

    def copy_on_device(self, target: int, source: int, nbytes: int, stream: Stream) -> None:
        """Begin to copy `nbytes` from the address `source` to the address `target`."""
        ...

    def kernel(self, image: bytes, name: str, signature: str) -> Kernel:
        """Load a function of a fatbin, a cubin or PTX.

        Args:
            image: the file's content.
            name: the function's.
            signature: one letter per argument: "P" an address, "i" an int32.
        """
        ...


class DeviceMemoryError(BackendError):
    """The device has too little memory for what was asked."""


def no_room(name: str, nbytes: int, free: int, total: int) -> DeviceMemoryError:
    """Create the error that says how much memory was asked for and how much is free."""
    return DeviceMemoryError(
        f"{name}: {nbytes / 1e9:.2f} GB asked for, {free / 1e9:.2f} of {total / 1e9:.1f} GB free; "
        f"use a smaller {option('--batch-size')}"
    )


def no_driver(reason: str) -> str:
    """Return the message that says what to do on a host where CUDA does not start."""
    return (
        f"no usable NVIDIA driver ({reason}): install a driver of release 580 or later and see that nvidia-smi "
        f"works, or score on the CPU (device cpu)"
    )


def require_driver(version: int) -> None:
    """Raise BackendError if the driver is older than what the kernels and the libraries are made for."""
    if version < _OLDEST_DRIVER:
        raise BackendError(
            f"the NVIDIA driver is too old: it supports CUDA {version // 1000}.{version % 1000 // 10}, and CUDA 13 is "
            f"needed; install a driver of release 580 or later, or score on the CPU (device cpu)"
        )


def require_index(index: int, count: int) -> None:
    """Raise BackendError unless there is a GPU `index`."""
    if index >= count:
        names = ", ".join(f"cuda:{i}" for i in range(count)) or "none"
        raise BackendError(f"cuda:{index}: no such GPU here (there is {names})")
