"""The device's own pool of memory, which nvImageCodec takes its images from."""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger("pscr_engine")

_RELEASE_THRESHOLD = 4  # CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
_KEPT_BYTES = 2 * 2**30


def keep_freed_memory(index: int) -> None:
    """Have the pool keep what is freed, up to 2 GiB, for the next images: by default each wait gives it all back.

    Args:
        index: of the GPU.
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
