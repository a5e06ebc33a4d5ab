"""The engines for GPUs, and which one "auto" is."""

from __future__ import annotations

import logging

from ..bundle import Bundle
from ..cuda.backend import CudaBackend
from ..cuda.device import Device
from ..cuda.engine import Engine, Shape
from ..cuda.exemplars import ResidentExemplars
from ..cuda.open import open_device

log = logging.getLogger("pscr_engine")


def create_on_gpu(
    bundle: Bundle, index: int, *, backend: str, precision: str, batch_size: int | None, threads: int
) -> CudaBackend:
    """See `registry.create_backend`."""

    def create(device: Device, exemplars: ResidentExemplars, shape: Shape) -> Engine:
        from .onnxruntime_cuda import DEFAULT_BATCH_SIZE, OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            bundle.graph_path(precision),
            device,
            exemplars,
            shape,
            precision=precision,
            batch_size=batch_size or DEFAULT_BATCH_SIZE,
        )

    return CudaBackend(bundle, open_device(index), create, threads=threads)
