"""Which backends there are. Each is imported when it is first asked for, with the packages it needs."""

from __future__ import annotations

from collections.abc import Sequence

from ..bundle import Bundle
from ..devices import gpu_index, is_gpu, resolve_devices
from ..errors import BackendError, UsageError
from .base import Backend, DeviceBackend

BACKENDS = ("onnxruntime", "tensorrt")


def create_backend(
    bundle: Bundle,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    tune: bool = False,
) -> Backend | DeviceBackend:
    """Load `bundle` into a backend on a device.

    Args:
        bundle: an opened bundle.
        backend: "onnxruntime", "tensorrt", or "auto" for the best one that this host can run.
        device: "cpu", "cuda:N", or "auto" for the first GPU, or else the processor.
        precision: "fp32", "fp16", or "auto" for the fastest one that this device runs well.
        batch_size: images per batch, which engines on a GPU are made for; None for their own choice.
        threads: processor threads that it may use; None for all usable cores.
        tune: whether to measure which batch size is best, where `batch_size` is None and the engine takes any.

    Raises:
        UsageError: an unknown backend or device.
        BundleError: the bundle lacks the precision.
        BackendError, MissingDependencyError: this host can't run the backend.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"backend {backend!r}: choose from {', '.join(BACKENDS)}")
    device = resolve_devices(device)[0]
    chosen = choose_precision(bundle, precision, [device])
    if is_gpu(device):
        from .on_gpu import create_on_gpu

        return create_on_gpu(
            bundle,
            gpu_index(device),
            backend=backend,
            precision=chosen,
            batch_size=batch_size,
            threads=threads or 0,
            tune=tune,
        )
    if backend == "tensorrt":
        raise UsageError("backend 'tensorrt' runs on NVIDIA GPUs: name one with --devices cuda:0")
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(
        bundle.graph_path(chosen), bundle.exemplars, device=device, precision=chosen, threads=threads
    )


def choose_precision(bundle: Bundle, precision: str, devices: Sequence[str] = ("cpu",)) -> str:
    """The precision that "auto" stands for on these devices.

    Raises:
        BundleError: the bundle lacks the precision that was asked for.
        BackendError: the bundle has none that these devices run.
    """
    if precision != "auto":
        bundle.graph_path(precision)
        return precision
    # ONNX Runtime's CPU kernels compute FP16 by way of FP32: FP16 costs time there and gains none.
    order = ("fp16", "fp32") if any(map(is_gpu, devices)) else ("fp32", "fp16")
    for name in order:
        if name in bundle.info.graphs:
            return name
    raise BackendError(f"{bundle.path}: no precision that runs on {devices[0]}, only {', '.join(bundle.info.graphs)}")
