"""Create the backend that is asked for; only that one is imported, with the packages that it needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..bundle import Bundle
from ..errors import BackendError, UsageError
from ..host import MadeOnce, fast_int8, int8_saturates
from .base import Backend
from .devices import gpu_index, is_gpu, resolve_devices

log = logging.getLogger("pscr_engine")

BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")


def create_backend(
    bundle: Bundle,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    tune: bool = False,
    throughput: bool = False,
) -> Backend:
    """Load `bundle` into a backend on a device.

    Args:
        bundle: an opened bundle.
        backend: "onnxruntime", "tensorrt", "tensorrt-rtx", or "auto" for the best one that this host can run.
        device: "cpu", "cuda:N", or "auto" for the first GPU, or else the processor.
        precision: "fp32", "fp16", "int8", or "auto" for the fastest one that this device runs well.
        batch_size: images per batch, which engines on a GPU are made for; None for their own choice.
        threads: processor threads that it may use; None for all usable cores.
        throughput: whether many images will be scored at once, rather than one after the other as they come.
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
        from .gpu import create_on_gpu

        return create_on_gpu(
            bundle,
            gpu_index(device),
            backend=backend,
            precision=chosen,
            batch_size=batch_size,
            threads=threads or 0,
            tune=tune,
        )
    if backend.startswith("tensorrt"):
        raise UsageError(f"backend {backend!r} runs on NVIDIA GPUs: name one with --devices cuda:0")
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(
        bundle.graph_path(chosen),
        bundle.exemplars,
        device=device,
        precision=chosen,
        threads=threads,
        throughput=throughput,
        content=f"{bundle.digest} {bundle.info.graphs[chosen].file}",
    )


def choose_precision(bundle: Bundle, precision: str, devices: Sequence[str] = ("cpu",)) -> str:
    """Decide which precision "auto" stands for on these devices; any other precision is checked and returned.

    On processors, "auto" is INT8 if they have instructions for it and the bundle's INT8 scores passed their check.

    Raises:
        BundleError: the bundle lacks the precision that was asked for.
        UsageError: the devices can't run it.
        BackendError: the bundle has none that these devices run.
    """
    gpu = any(map(is_gpu, devices))
    if precision != "auto":
        bundle.graph_path(precision)
        if gpu and precision == "int8":
            raise UsageError("--precision int8 is for CPUs: on GPUs use fp16, or choose --devices cpu")
        if precision == "int8" and int8_saturates():
            _warn_of_saturation()
        return precision
    graphs = bundle.info.graphs
    # ONNX Runtime's CPU kernels compute FP16 by way of FP32: FP16 costs time there and gains none.
    order: tuple[str, ...] = ("fp16", "fp32") if gpu else ("fp32", "fp16")
    if not gpu and "int8" in graphs and fast_int8() and graphs["int8"].parity.passed:
        order = ("int8", *order)
    for name in order:
        if name in graphs:
            return name
    raise BackendError(f"{bundle.shown}: no precision that runs on {devices[0]}, only {', '.join(bundle.info.graphs)}")


@MadeOnce
def _warn_of_saturation() -> None:
    log.warning(
        "this processor has no VNNI: it adds products of bytes in 16 bits, which can overflow, so INT8 scores may be "
        "further off than the bundle's check says; --precision fp32 is exact"
    )
