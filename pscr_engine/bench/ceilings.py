"""What this host can do at most: multiply-adds and bytes of memory per second, measured."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..host import usable_cpus

_BANDWIDTH_BYTES = 256 * 2**20  # far more than the caches hold
_REPEATS = 5


@cache
def instruction_peak() -> dict[str, float]:
    """GMAC/s by precision of the processor's vector instructions on registers, on all usable cores.

    Without "int8" where it has no instructions for products of bytes; empty where there is no C compiler.
    """
    source = Path(__file__).with_name("peak.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        try:
            command = ["cc", "-O2", "-march=native", str(source), "-o", str(program), "-lpthread"]
            subprocess.run(command, check=True, capture_output=True)
            threads = str(min(256, usable_cpus()))
            found = subprocess.run([str(program), threads], check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return {}
    int8, fp32 = map(float, found.split())
    return {"int8": int8, "fp32": fp32} if int8 else {"fp32": fp32}


def arithmetic_peak(precision: str) -> tuple[float, str] | None:
    """GMAC/s of the processor in `precision`, and how that was measured; None where it can't be.

    The speed of the instructions where it can be had; for FP32 else that of NumPy's product of large matrices, which
    comes near it. FP16 is computed in FP32.
    """
    kind = "int8" if precision == "int8" else "fp32"
    found = instruction_peak()
    if kind in found:
        return found[kind], "vector instructions on registers, all cores"
    if kind == "fp32":
        return _matrix_product(), "NumPy, product of large matrices"
    return None


def _matrix_product(side: int = 2048) -> float:
    """GMAC/s of [side, side] · [side, side] in FP32."""
    matrix = np.random.default_rng(0).random((side, side), np.float32)
    return side**3 / _shortest(lambda: matrix @ matrix) / 1e9


@cache
def memory_bandwidth() -> float:
    """GB/s, read and written, of copying arrays far larger than the caches, on all usable cores."""
    threads = usable_cpus()
    halves = [np.ones((2, max(2**20, _BANDWIDTH_BYTES // threads)), np.uint8) for _ in range(threads)]

    def copy(pair: Any) -> None:
        np.copyto(pair[0], pair[1])

    with ThreadPoolExecutor(threads) as pool:
        moved = sum(pair.nbytes for pair in halves)
        return moved / _shortest(lambda: list(pool.map(copy, halves))) / 1e9


def _shortest(work: Callable[[], object]) -> float:
    def seconds() -> float:
        start = perf_counter()
        work()
        return perf_counter() - start

    work()
    return min(seconds() for _ in range(_REPEATS))
