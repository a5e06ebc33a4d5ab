"""Measure what a GPU can do at most: multiply-adds of a large product by cuBLAS, and copies in its own memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from ..errors import BackendError, MissingDependencyError
from .device import Device, Stream

_SIDE = 8192
_COPIED_BYTES = 2**30
_REPEATS = 20
_ROUNDS = 3
# Values from library_types.h and cublas_api.h.
CUDA_R_32F, CUDA_R_16F = 0, 2
CUBLAS_COMPUTE_32F = 68
CUBLAS_OP_N, CUBLAS_GEMM_DEFAULT = 0, -1


def arithmetic_peak(device: Device, precision: str) -> float:
    """Measure GMAC/s of a product of large matrices: FP16 with FP32 sums for "fp16", else FP32.

    Args:
        device: the GPU, current in this thread.
        precision: "fp32" or "fp16".

    Raises:
        MissingDependencyError: cuBLAS is not installed.
        BackendError: cuBLAS fails.
    """
    cublas = _library()
    kind, size = (CUDA_R_16F, 2) if precision == "fp16" else (CUDA_R_32F, 4)
    stream = device.stream()
    matrices = [device.allocate(size * _SIDE * _SIDE) for _ in range(3)]
    handle = ctypes.c_void_p()
    _check(cublas.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
    try:
        _check(cublas.cublasSetStream_v2(handle, ctypes.c_void_p(stream.handle)), "cublasSetStream")
        one, zero, n = ctypes.c_float(1), ctypes.c_float(0), ctypes.c_int(_SIDE)
        a, b, c = (ctypes.c_void_p(matrix.address) for matrix in matrices)

        def product() -> None:
            _check(
                cublas.cublasGemmEx(
                    handle,
                    *(CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, ctypes.byref(one)),
                    *(a, kind, n, b, kind, n, ctypes.byref(zero), c, kind, n),
                    *(CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                ),
                "cublasGemmEx",
            )

        return _SIDE**3 / _seconds(product, stream) / 1e9
    finally:
        cublas.cublasDestroy_v2(handle)
        for matrix in matrices:
            matrix.free()


def memory_bandwidth(device: Device) -> float:
    """Measure GB/s, read and written, of copies within the memory of a device that is current in this thread."""
    stream = device.stream()
    source, target = device.allocate(_COPIED_BYTES), device.allocate(_COPIED_BYTES)
    try:
        copy = _seconds(lambda: device.copy_on_device(target.address, source.address, _COPIED_BYTES, stream), stream)
    finally:
        source.free()
        target.free()
    return 2 * _COPIED_BYTES / copy / 1e9


def _seconds(work: Callable[[], None], stream: Stream) -> float:
    """Time one call of `work`: the best mean of a few rounds of many calls, after a round that doesn't count."""
    best = float("inf")
    for _ in range(_ROUNDS + 1):
        stream.synchronize()
        start = perf_counter()
        for _ in range(_REPEATS):
            work()
        stream.synchronize()
        best = min(best, (perf_counter() - start) / _REPEATS)
    return best


def _library() -> ctypes.CDLL:
    beside = [path for entry in sys.path if entry for path in Path(entry).glob("nvidia/*/lib/libcublas.so.1?")]
    for name in ("libcublas.so.13", "libcublas.so.12", *map(str, sorted(beside, reverse=True))):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise MissingDependencyError("cuBLAS", "measuring the GPU's arithmetic peak", "gpu")


def _check(code: int, what: str) -> None:
    if code != 0:
        raise BackendError(f"{what} failed with code {code}: the GPU's arithmetic peak can't be measured")
