"""How many GPUs there are, without opening any: no library but the driver's own is needed."""

from __future__ import annotations

import ctypes


def gpu_count() -> int:
    """GPUs that the driver shows this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
