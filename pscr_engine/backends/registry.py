"""Create the backend that is asked for; only that one is imported, with the packages that it needs."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import UsageError
from .base import Backend
from .devices import gpu_index, is_gpu, resolve_devices
from .precision import choose_precision

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")


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
        backend: "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", or "auto" for the best one
            that this host can run.
        device: "cpu", "cuda:N", or "auto" for the first GPU, or else the processor.
        precision: "fp32", "fp16", "bf16", "int8", or "auto" for the fastest one that this device runs well.
        batch_size: images per batch, which engines on a GPU are made for; None for their own choice.
        threads: processor threads that it may use; None for all usable cores.
        throughput: whether many images will be scored at once, rather than one after the other as they come.
        tune: whether to measure what is best on this host, if that is not known yet: the batch size on a GPU, where
            `batch_size` is None and the engine takes any; the engine on a processor.

    Raises:
        UsageError: an unknown backend or device.
        BundleError: the bundle lacks the precision.
        BackendError, MissingDependencyError: this host can't run the backend.
    """
    device = resolve_devices(device, "--device")[0]
    chosen = check_backend(bundle, backend=backend, device=device, precision=precision)
    if is_gpu(device):
        from .gpu import create_on_gpu

        return create_on_gpu(
            bundle,
            gpu_index(device),
            backend=backend,
            precision=chosen,
            batch_size=batch_size,
            threads=threads or 0,
            tune=tune and throughput,
        )
    from .cpu import create_on_cpu

    return create_on_cpu(bundle, backend=backend, precision=chosen, threads=threads, throughput=throughput, tune=tune)


def check_backend(bundle: Bundle, *, backend: str, device: str, precision: str) -> str:
    """Check what `create_backend` can be given before anything is loaded, and return the precision.

    Args:
        bundle: an opened bundle.
        backend: as in `create_backend`.
        device: "cpu" or "cuda:N".
        precision: as in `create_backend`.

    Raises:
        UsageError: an unknown backend, or one that doesn't run on such a device.
        BundleError, BackendError: as in `choose_precision`.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"backend {backend!r}: choose from {', '.join(BACKENDS)}")
    chosen = choose_precision(bundle, precision, [device], backend=backend)
    if not is_gpu(device) and backend.startswith("tensorrt"):
        raise UsageError(f"backend {backend!r} runs on NVIDIA GPUs: name one as the device, cuda:0")
    return chosen
