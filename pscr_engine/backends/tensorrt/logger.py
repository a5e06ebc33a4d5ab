"""Receive TensorRT's messages, and collect errors: nothing else says why a call has returned None or False.

TensorRT has one logger per process: it keeps the first that it is given.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from ...cuda.device import DeviceMemoryError
from ...errors import BackendError
from .library import loaded_tensorrt

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = loaded_tensorrt()

log = logging.getLogger("pscr_engine.tensorrt")

_LEVELS = {
    trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
    trt.ILogger.Severity.ERROR: logging.ERROR,
    trt.ILogger.Severity.WARNING: logging.INFO,  # users can do nothing about them
    trt.ILogger.Severity.INFO: logging.DEBUG,
    trt.ILogger.Severity.VERBOSE: logging.DEBUG,
}
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "cudaerrormemoryallocation")


class Logger(trt.ILogger):  # type: ignore[misc]  # Any, where TensorRT is not installed
    """Passes messages on to `logging`, and collects errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Pass a message on; TensorRT calls this, from any thread."""
        level = _LEVELS[severity]
        if level == logging.ERROR:
            with self._lock:
                self.errors.append(msg)
        log.log(logging.DEBUG if level == logging.ERROR else level, "%s", msg)

    def reasons(self) -> str:
        """Return the errors since the last call, in one line, and forget them."""
        with self._lock:
            text = " ".join(" ".join(self.errors).split())[:400]
            self.errors.clear()
        return text or "TensorRT gives no reason"

    def failure(self, what: str) -> BackendError:
        """Create the exception for a call of TensorRT that has returned None or False."""
        kind = DeviceMemoryError if self.out_of_memory else BackendError
        return kind(f"{what}: {self.reasons()}")

    @property
    def out_of_memory(self) -> bool:
        """Tell whether one of the errors is a lack of memory."""
        return any(sign in message.lower() for message in self.errors for sign in _OUT_OF_MEMORY)


LOGGER = Logger()
"""The process's one logger."""
