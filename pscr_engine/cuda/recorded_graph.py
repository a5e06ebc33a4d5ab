"""CUDA graphs: work that is recorded once and then started with a single call.

They are recorded by the driver's own functions, since PyCUDA has none for it, whichever library opened the device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from ..errors import BackendError
from .device import Stream

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class CaptureError(BackendError):
    """The work can't be recorded, for example because it waits for the device."""


class Graph:
    """Recorded work, which always uses the addresses that it was recorded with.

    Args:
        stream: what `record` enqueues on, and where the work will run; its device is current in this thread.
        record: enqueues the work, which is recorded and not done yet.

    Raises:
        CaptureError: the work can't be recorded; the stream is usable as before.
    """

    def __init__(self, stream: Stream, record: Callable[[], None]) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._stream = ctypes.c_void_p(stream.handle)
        self._recorded = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            record()
        except BackendError as error:
            raise CaptureError(str(error)) from error
        finally:
            code = self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        self._check("cuStreamEndCapture", code)
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._recorded), graph, ctypes.c_ulonglong(0))
        self._driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Begin the work on the stream.

        Raises:
            BackendError: CUDA can't start it.
        """
        code = self._driver.cuGraphLaunch(self._recorded, self._stream)
        if code:
            raise BackendError(f"cuGraphLaunch failed (CUDA error {code})")

    def free(self) -> None:
        """Give the graph's memory back. Its work must not be under way."""
        self._driver.cuGraphExecDestroy(self._recorded)

    def _call(self, function: str, *arguments: object) -> None:
        self._check(function, getattr(self._driver, function)(*arguments))

    def _check(self, function: str, code: int) -> None:
        if code:
            raise CaptureError(f"{function} failed (CUDA error {code})")
