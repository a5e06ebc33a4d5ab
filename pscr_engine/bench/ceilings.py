"""Measure what this host's processor can do at most: multiply-adds, and bytes of memory, per second."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..host import MadeOnce, usable_cpus

_BANDWIDTH_BYTES = 256 * 2**20  # far more than the caches hold
_REPEATS = 5


@MadeOnce
def instruction_peak() -> dict[str, float]:
    """Measure GMAC/s, by precision, of the processor's vector instructions on registers, on all usable cores.

    "int8" is missing where there are no instructions for products of bytes, all where there is no C compiler.
    """
    source = Path(__file__).with_name("peak.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        try:
            command = ["cc", "-O2", "-march=native", str(source), "-o", str(program), "-lpthread"]
            subprocess.run(command, check=True, capture_output=True)
            threads = str(min(256, usable_cpus()))
            printed = subprocess.run([str(program), threads], check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return {}
    int8, fp32 = map(float, printed.split())
    return {"int8": int8, "fp32": fp32} if int8 else {"fp32": fp32}


def arithmetic_peak(precision: str) -> tuple[float, str] | None:
    """Measure GMAC/s of the processor in `precision`, and say how; return None where that can't be measured.

    It is the speed of the vector instructions, or, for FP32 where that is not known, of NumPy's product of large
    matrices, which comes near it. FP16 is computed in FP32.
    """
    kind = "int8" if precision == "int8" else "fp32"
    peaks = instruction_peak()
    if kind in peaks:
        return peaks[kind], "vector instructions on registers, all cores"
    if kind == "fp32":
        return _matrix_product(), "NumPy, product of large matrices"
    return None


def _matrix_product(side: int = 2048) -> float:
    """Measure GMAC/s of the product [side, side] · [side, side] in FP32."""
    matrix = np.random.default_rng(0).random((side, side), np.float32)
    return side**3 / _shortest(lambda: matrix @ matrix) / 1e9


@MadeOnce
def memory_bandwidth() -> float:
    """Measure GB/s, read and written, of copying arrays far larger than the caches, on all usable cores."""
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
