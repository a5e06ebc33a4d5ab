"""Measure what more exemplars cost: time and peak memory of a batch, with M from 10 to 10,000.

python -m benchmarks.exemplars
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.bundle import Bundle, Exemplars

from .common import (
    CACHE,
    random_patches,
    record,
    spread,
    untrained_bundle,
    untrained_checkpoint,
    words,
    write_scoring_graph,
)

COUNTS = (10, 1000, 10_000)
BATCHES = (1, 8)
ROUNDS = {1: 41, 8: 11}
METHOD = (
    "resnet18, OPS, all usable cores, patches of noise, made-up exemplar cache; a graph made for each M, as export "
    "does. Time: one session per M, one process, "
    "batches in turn (M = 10, 1000, 10000, 10, ...); ratios are pair by pair within a round, against M = 10. "
    "Memory: peak resident size of a process of its own per M and batch, after five batches; "
    "'naive_product_mb' is what one float32 array [B, M, C] would take. Graphs: nodes and bytes of the graph made for "
    "M, and of the one for any M, whose head has slices of 16 channels; both score the same eight images, 'equal' is "
    "the largest difference of these scores, 'ratio_of_seconds' the time of the first by that of the second, pair by "
    "pair."
)


def with_exemplars(bundle: Bundle, count: int) -> Bundle:
    """Return the bundle with a made-up cache of `count` exemplars in place of its own."""
    C = bundle.info.feature_size
    rng = np.random.default_rng(count)
    hidden = rng.normal(size=(count, C)).astype(np.float32)
    return replace(bundle, exemplars=Exemplars(hidden, rng.uniform(1, 5, count).astype(np.float32), hidden))


@cache
def graph(count: int | None) -> Path:
    """Return the file of resnet18's scoring graph, made for `count` exemplars, or for any number (None)."""
    path = CACHE / f"resnet18-for-{count or 'any'}.onnx"
    if not path.exists():
        from pscr_export.checkpoint import read_checkpoint

        write_scoring_graph(read_checkpoint(untrained_checkpoint("resnet18"), "auto"), path, exemplars=count)
    return path


def backend(bundle: Bundle, count: int, made_for: int | None) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(graph(made_for), with_exemplars(bundle, count).exemplars)


def graphs(bundle: Bundle, count: int) -> dict[str, Any]:
    """Compare the graph made for `count` exemplars with the one for any number."""
    import onnx

    patches = random_patches(bundle, 8)
    mine, any_ = backend(bundle, count, count), backend(bundle, count, None)
    scores = [scorer.score(patches).score for scorer in (mine, any_)]
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS[8]):
        for index, scorer in enumerate((mine, any_)):
            start = perf_counter()
            scorer.score(patches)
            seconds[index].append(perf_counter() - start)
    return {
        **{
            name: {"nodes": len(onnx.load(path).graph.node), "bytes": path.stat().st_size}
            for name, path in (("made for M", graph(count)), ("for any M", graph(None)))
        },
        "equal": float(np.abs(scores[0] - scores[1]).max()),
        "ratio_of_seconds": spread([a / b for a, b in zip(*seconds, strict=True)]),
    }


def peak_memory(batch: int, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.exemplars", "peak", str(batch), str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_peak(batch: int, count: int) -> None:
    bundle = untrained_bundle("resnet18")
    scorer, patches = backend(bundle, count, count), random_patches(bundle, batch)
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
        backends = {count: backend(bundle, count, count) for count in COUNTS}
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
    compared = {f"M {count}": graphs(bundle, count) for count in COUNTS}
    print(compared)
    print(record("exemplars-cpu", METHOD, {"figures": figures, "graphs": compared}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        print_peak(int(sys.argv[2]), int(sys.argv[3]))
    else:
        words(__doc__, ())
        main()
