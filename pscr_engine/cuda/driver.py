"""Calls to the driver's own library that need no opened GPU: how many there are, its version, the memory pool."""

from __future__ import annotations

import ctypes
import logging


def gpu_count() -> int:
    """Count the GPUs that the driver shows this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def driver_version() -> int:
    """Return the version of CUDA that the driver supports, 13000 for 13.0; 0 without a driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


log = logging.getLogger("pscr_engine")

_RELEASE_THRESHOLD = 4  # CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
_KEPT_BYTES = 2 * 2**30


def keep_freed_memory(index: int) -> None:
    """Make a GPU's memory pool keep up to 2 GiB of freed memory for the next images; by default it keeps none.

    Args:
        index: the GPU's.
    """
    driver, device, pool = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
    kept = ctypes.c_uint64(_KEPT_BYTES)
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), index)
        or driver.cuDeviceGetDefaultMemPool(ctypes.byref(pool), device)
        or driver.cuMemPoolSetAttribute(pool, ctypes.c_int(_RELEASE_THRESHOLD), ctypes.byref(kept))
    )
    if failed:
        log.info("cuda:%d has no memory pool that keeps freed memory (CUDA error %d)", index, failed)
