"""Which backends there are. Each is imported when it is first asked for, with the packages it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from ..bundle import Bundle
from ..devices import resolve_devices
from ..errors import BackendError, UsageError
from .base import Backend

_FACTORIES = {"onnxruntime": "pscr_engine.backends.onnxruntime:OnnxRuntimeBackend"}

BACKENDS = tuple(_FACTORIES)


def create_backend(
    bundle: Bundle,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Backend:
    """Load `bundle` into a backend on a device.

    Args:
        bundle: an opened bundle.
        backend: "onnxruntime", or "auto" for the best one that this host can run.
        device: "cpu", or "auto".
        precision: "fp32", "fp16", or "auto" for the fastest one that this device runs well.
        threads: processor threads that it may use; None for all usable cores.

    Raises:
        UsageError: an unknown backend or device.
        BundleError: the bundle lacks the precision.
        BackendError, MissingDependencyError: this host can't run the backend.
    """
    (device,) = resolve_devices(device)
    name = "onnxruntime" if backend == "auto" else backend
    if name not in _FACTORIES:
        raise UsageError(f"backend {backend!r}: choose from {', '.join(BACKENDS)}")
    module, _, attribute = _FACTORIES[name].partition(":")
    factory = cast("Callable[..., Backend]", getattr(import_module(module), attribute))
    chosen = choose_precision(bundle, precision)
    return factory(
        bundle.graph_path(chosen),
        bundle.exemplars,
        device=device,
        precision=chosen,
        threads=threads,
    )


def choose_precision(bundle: Bundle, precision: str) -> str:
    """The precision that "auto" stands for.

    Raises:
        BundleError: the bundle lacks the precision that was asked for.
        BackendError: the bundle has none that a CPU runs.
    """
    if precision != "auto":
        bundle.graph_path(precision)
        return precision
    # ONNX Runtime's CPU kernels compute FP16 by way of FP32: FP16 costs time there and gains none.
    for name in ("fp32", "fp16"):
        if name in bundle.info.graphs:
            return name
    raise BackendError(f"{bundle.path}: no precision that runs on a CPU, only {', '.join(bundle.info.graphs)}")
