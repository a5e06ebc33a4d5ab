"""This host: processor cores that may really be used, the user's cache, how memory is kept, and what stays unloaded."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import sys
from collections.abc import Callable
from functools import update_wrapper
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import RLock
from typing import Generic, ParamSpec, TypeVar

Made = TypeVar("Made")
Arguments = ParamSpec("Arguments")


class MadeOnce(Generic[Arguments, Made]):
    """A function whose results are made once and kept, by whichever of several threads asks first.

    With `functools.cache`, threads that ask at the same time get an object each.
    """

    def __init__(self, make: Callable[Arguments, Made]) -> None:
        self._make, self._lock = make, RLock()
        self._made: dict[tuple[object, ...], Made] = {}
        update_wrapper(self, make)

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
        """Return the result for these arguments, which is made now if nobody has asked for it before."""
        key = (*args, *kwargs.items())
        if key not in self._made:
            with self._lock:
                if key not in self._made:
                    self._made[key] = self._make(*args, **kwargs)
        return self._made[key]

    def cache_clear(self) -> None:
        """Drop all results."""
        self._made.clear()


class _NoPandas:
    """A finder of modules that says of pandas that there is none."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("Arrow has no use for it here", name=name)


def keep_pandas_out() -> None:
    """Let Arrow, which must be loaded, do without pandas in this process; only for a process that is ours alone.

    Where pandas is installed, Arrow loads it at the first list that it is given, to see whether that is a pandas
    object: 0.4 s that no command has use for. It tries that once; whoever else asks for pandas then gets it.
    """
    if "pyarrow" in sys.modules and "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas)
        try:
            sys.modules["pyarrow"].array([0])
        finally:
            sys.meta_path.remove(_NoPandas)


def usable_cpus() -> int:
    """Count the cores this process may use: its affinity mask, cut by a container's CPU quota (cgroup v1 or v2)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, cpus if quota is None else min(cpus, math.ceil(quota)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = (root / "cpu/cpu.cfs_quota_us").read_text()
        period = (root / "cpu/cpu.cfs_period_us").read_text()
        return None if int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def cache_folder() -> Path:
    """Return the folder for what can be made again, this user's; it need not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pscr-engine"


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; None if it isn't."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# Instructions that add up products of four bytes: without them, eight bits are no faster than 32.
_BYTE_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


@MadeOnce
def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def processor_model() -> str:
    """Return the processor's own name."""
    return _cpuinfo().get("model name", platform.processor())


def cpu_flags() -> frozenset[str]:
    """Return the processor's instruction sets, by the kernel's names; empty where it doesn't tell."""
    info = _cpuinfo()
    return frozenset(info.get("flags", info.get("Features", "")).split())


def processor() -> str:
    """Name the kind of processor: its model and its instruction sets."""
    return f"{platform.machine()} {processor_model()} {' '.join(sorted(cpu_flags()))}"


def fast_int8() -> bool:
    """Tell whether the processor has instructions for products of bytes (VNNI, AMX, or ARM's dot product)."""
    return not _BYTE_PRODUCTS.isdisjoint(cpu_flags())


def int8_saturates() -> bool:
    """Tell whether sums of byte products are cut to 16 bits on this processor: x86 without VNNI or AMX."""
    return platform.machine() in ("x86_64", "AMD64") and not fast_int8()


# malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


def keep_freed_memory(*, even_large: bool = False) -> None:
    """Have this process keep the memory of images that it is done with, for the next ones.

    glibc gives blocks of this size back to the system at once, and every image would pay for fresh
    pages. For processes that are our own: the setting is the whole process's.

    Args:
        even_large: keep blocks of more than 32 MB, too, as a network's activations are in training.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_MMAP_THRESHOLD, 32 * 2**20)
    mallopt(_TRIM_THRESHOLD, 512 * 2**20)
    if even_large:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def freeze_gc() -> None:
    """Freeze the garbage collector on start-up objects, so that it need not scan them."""
    gc.collect()
    gc.freeze()
