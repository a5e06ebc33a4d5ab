"""Measure what only a GPU has: the engine alone, with all data on the device, and the device's ceilings."""

from __future__ import annotations

from ..backends.base import Backend
from ..cuda import ceilings
from ..cuda.backend import CudaBackend
from ..cuda.batch_size import measure_batch_sizes
from ..errors import BackendError, MissingDependencyError
from .rate import Rate


def engine_alone(backend: Backend, batch_size: int, rounds: int) -> Rate:
    """Measure the engine of a backend on a GPU: patches and exemplars are on the device."""
    assert isinstance(backend, CudaBackend)
    engine, gpu, shape = backend.engine, backend.gpu, backend.shape
    with gpu.current():
        return Rate.of([measure_batch_sizes(engine, gpu, shape, (batch_size,))[batch_size] for _ in range(rounds)])


def device_ceilings(backend: Backend) -> tuple[float | None, float | None, str]:
    """Measure the device's arithmetic peak in GMAC/s and its memory bandwidth in GB/s, and say how, or why not."""
    assert isinstance(backend, CudaBackend)
    with backend.gpu.current():
        bandwidth = ceilings.memory_bandwidth(backend.gpu)
        try:
            return ceilings.arithmetic_peak(backend.gpu, backend.precision), bandwidth, "cuBLAS, large product"
        except (BackendError, MissingDependencyError) as error:
            return None, bandwidth, f"not measured: {error}"
