"""What more exemplars cost: time and peak memory of a batch, with M from 10 to 10,000.

python -m benchmarks.exemplars
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.bundle import Bundle, Exemplars

from .common import random_patches, record, spread, untrained_bundle

COUNTS = (10, 1000, 10_000)
BATCHES = (1, 8)
ROUNDS = {1: 41, 8: 11}
METHOD = (
    "resnet18, OPS, all usable cores, patches of noise, made-up exemplar cache. Time: one session per M, one process, "
    "batches in turn (M = 10, 1000, 10000, 10, ...); ratios are pair by pair within a round, against M = 10. "
    "Memory: peak resident size of a process of its own per M and batch, after five batches; "
    "'naive_product_mb' is what one float32 array [B, M, C] would take."
)


def with_exemplars(bundle: Bundle, count: int) -> Bundle:
    """The bundle with a made-up exemplar cache of `count`."""
    C = bundle.info.feature_size
    rng = np.random.default_rng(count)
    hidden = rng.normal(size=(count, C)).astype(np.float32)
    return replace(bundle, exemplars=Exemplars(hidden, rng.uniform(1, 5, count).astype(np.float32), hidden))


def backend(bundle: Bundle, count: int) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(bundle.graph_path("fp32"), with_exemplars(bundle, count).exemplars)


def peak_memory(batch: int, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.exemplars", "peak", str(batch), str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_peak(batch: int, count: int) -> None:
    bundle = untrained_bundle("resnet18")
    scorer, patches = backend(bundle, count), random_patches(bundle, batch)
    for _ in range(5):
        scorer.score(patches)
    # Not getrusage: its peak would include that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    bundle = untrained_bundle("resnet18")
    figures = {}
    for batch in BATCHES:
        patches = random_patches(bundle, batch)
        backends = {count: backend(bundle, count) for count in COUNTS}
        for scorer in backends.values():
            scorer.score(patches)
        seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
        for _ in range(ROUNDS[batch]):
            for count, scorer in backends.items():
                start = perf_counter()
                scorer.score(patches)
                seconds[count].append(perf_counter() - start)
        del backends
        for count in COUNTS:
            ratios = [many / ten for many, ten in zip(seconds[count], seconds[10], strict=True)]
            figures[f"batch {batch}, M {count}"] = {
                "seconds": spread(seconds[count]),
                "ratio_to_10": spread(ratios),
                "peak_memory_mb": round(peak_memory(batch, count), 1),
                "naive_product_mb": round(batch * count * bundle.info.feature_size * 4 / 2**20, 1),
            }
            print(f"batch {batch}, M {count}: {figures[f'batch {batch}, M {count}']}")
    print(record("exemplars-cpu", METHOD, {"figures": figures}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        print_peak(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
