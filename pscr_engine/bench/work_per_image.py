"""Count what one image costs, by ONNX Runtime's profile: multiply-adds, and bytes that operators read and write."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle

_RUNS = 5


@dataclass(frozen=True, slots=True)
class Work:
    """What scoring one image costs.

    Args:
        multiply_adds: of all convolutions and matrix products of the network as it was trained.
        bytes_moved: bytes that the operators read and write, weights included, each counted by itself: they go
            through the caches, and through memory as far as the caches are too small.
        operators: type of operator → share of the time of one run on one core, largest first.
    """

    multiply_adds: float
    bytes_moved: float
    operators: dict[str, float]


def work_of(bundle: Bundle, precision: str) -> Work:
    """Profile `precision`'s graph on the processor with one image.

    Products are counted in the FP32 graph, if there is one: an INT8 graph's first convolution has zeros added.
    """
    counted = "fp32" if "fp32" in bundle.info.graphs else precision
    products = sum(map(_multiply_adds, _profile(bundle, counted, runs=1, optimised=False)))
    times: Counter[str] = Counter()
    moved = 0
    events = list(_profile(bundle, precision, runs=_RUNS, optimised=True))
    for event in events:
        times[event["args"]["op_name"]] += event["dur"]
        moved += sum(int(event["args"].get(name, 0)) for name in ("activation_size", "parameter_size", "output_size"))
    total = max(1, sum(times.values()))
    return Work(products, moved / _RUNS, {name: round(spent / total, 4) for name, spent in times.most_common(8)})


def _profile(bundle: Bundle, precision: str, *, runs: int, optimised: bool) -> Iterator[dict[str, Any]]:
    """Profile `runs` runs of one image (if several, after a warm-up); yield ONNX Runtime's event of every operator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_profiling = True
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    D, P = bundle.info.sampling.patches, bundle.info.patch_size
    patches = np.random.default_rng(0).integers(0, 256, (D, P, P, 3), dtype=np.uint8)
    cache = bundle.exemplars
    feed = {"patches": patches, "exemplar_hidden": cache.hidden, "exemplar_labels": cache.labels}
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(bundle.graph_path(precision)), options, providers=["CPUExecutionProvider"]
        )
        warm = runs > 1
        for _ in range(runs + warm):
            session.run(["score"], feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("kernel_time")]
    # The operators inside a Scan have events of their own.
    nodes = [event for event in nodes if event["args"]["op_name"] != "Scan"]
    yield from nodes[len(nodes) // (runs + 1) :] if warm else nodes


def _multiply_adds(event: dict[str, Any]) -> float:
    arguments = event["args"]
    shapes: list[list[int]] = [next(iter(each.values())) for each in arguments.get("input_type_shape", []) if each]
    outputs: list[list[int]] = [next(iter(each.values())) for each in arguments.get("output_type_shape", []) if each]
    match arguments["op_name"]:
        case "Conv" | "FusedConv":
            return math.prod(outputs[0]) * math.prod(shapes[1][1:])
        case "MatMul":
            return math.prod(outputs[0]) * shapes[0][-1]
        case "Gemm":
            return math.prod(outputs[0]) * math.prod(shapes[0]) / outputs[0][0]
    return 0.0
