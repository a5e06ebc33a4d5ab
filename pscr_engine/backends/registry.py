"""Which backends there are. Each is imported when it is first asked for, with the packages it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from ..bundle import Bundle
from ..errors import BackendError, UsageError
from .base import Backend

_FACTORIES = {"onnxruntime": "pscr_engine.backends.onnxruntime:OnnxRuntimeBackend"}

BACKENDS = tuple(_FACTORIES)
DEVICES = ("cpu",)


def create_backend(bundle: Bundle, *, backend: str = "auto", device: str = "auto", precision: str = "auto") -> Backend:
    """Load `bundle` into a backend on a device.

    Args:
        bundle: an opened bundle.
        backend: "onnxruntime", or "auto" for the best one that this host can run.
        device: "cpu", or "auto".
        precision: "fp32", "fp16", or "auto" for the fastest one that this device runs well.

    Raises:
        UsageError: an unknown backend or device.
        BundleError: the bundle lacks the precision.
        BackendError, MissingDependencyError: this host can't run the backend.
    """
    if device not in ("auto", *DEVICES):
        raise UsageError(f"device {device!r}: this version of pscr-engine runs on {', '.join(DEVICES)} only")
    name = "onnxruntime" if backend == "auto" else backend
    if name not in _FACTORIES:
        raise UsageError(f"backend {backend!r}: choose from {', '.join(BACKENDS)}")
    module, _, attribute = _FACTORIES[name].partition(":")
    factory = cast("Callable[..., Backend]", getattr(import_module(module), attribute))
    chosen = _choose(bundle, precision)
    return factory(
        bundle.graph_path(chosen),
        bundle.exemplars,
        device="cpu" if device == "auto" else device,
        precision=chosen,
    )


def _choose(bundle: Bundle, precision: str) -> str:
    if precision != "auto":
        bundle.graph_path(precision)
        return precision
    # ONNX Runtime's CPU kernels compute FP16 by way of FP32: FP16 costs time there and gains none.
    for name in ("fp32", "fp16"):
        if name in bundle.info.graphs:
            return name
    raise BackendError(f"{bundle.path}: no precision that runs on a CPU, only {', '.join(bundle.info.graphs)}")
