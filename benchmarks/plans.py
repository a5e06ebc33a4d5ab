"""Compile every backbone's scoring graph with TensorRT for RTX: build time, and sizes of graph and plan.

python -m benchmarks.plans [BACKBONE ...]

Needs no GPU. Weights are random: neither build time nor size depends on them much.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from pscr_engine.backends.tensorrt.library import RTX, require_tensorrt
from pscr_engine.cuda.engine import Shape

from .common import RESULTS, record, versions, words, write_scoring_graph

EXEMPLARS = 10
BATCH_SIZE = 64
PRECISIONS = ("fp16", "fp32")
METHOD = (
    "TensorRT for RTX on the processor, without a GPU, by the project's own builder: portable plans for batches of 64 "
    "images, optimisation level 3. Scoring graphs of the eight backbones at their patch size, OPS, ten exemplars, "
    "random weights; one process per plan. nodes and graph_mb: of the ONNX graph."
)


def write_graph(backbone: str, precision: str, path: Path) -> Shape:
    """Export the scoring graph of a backbone with random weights."""
    import torch
    from pscr_export.backbones import BACKBONES
    from pscr_export.checkpoint import Checkpoint

    spec = BACKBONES[backbone]
    C = spec.feature_size
    checkpoint = Checkpoint(
        path=path,
        sha256="",
        backbone=spec,
        trunk=spec.build().eval(),
        fc1_weight=torch.randn(C, 2 * C) / C,
        fc1_bias=torch.zeros(C),
        fc2_weight=torch.randn(1, C) / C,
        fc2_bias=torch.zeros(1),
        epoch=None,
        rho_best=None,
    )
    return write_scoring_graph(checkpoint, path, precision, EXEMPLARS)


def build(graph: Path, shape: Shape, level: int = 3) -> bytes:
    """Compile a graph to a portable plan, and return the plan."""
    require_tensorrt(RTX)
    from pscr_engine.backends.tensorrt.builder import Build, build_plan

    return build_plan(Build(graph, shape, BATCH_SIZE, EXEMPLARS, level, targets="portable"))


def measure(graph: Path, shape: Shape) -> dict[str, Any]:
    """Compile a graph in this process; return seconds, sizes of plan and graph, and the number of nodes."""
    import onnx

    nodes = len(onnx.load(graph, load_external_data=False).graph.node)
    start = perf_counter()
    plan = build(graph, shape)
    return {
        "seconds": round(perf_counter() - start, 1),
        "plan_mb": round(len(plan) / 1e6, 1),
        "graph_mb": round(graph.stat().st_size / 1e6, 1),
        "nodes": nodes,
    }


def main() -> None:
    from pscr_export.backbones import BACKBONES

    chosen = words(__doc__, BACKBONES)
    path = RESULTS / "tensorrt-rtx-plans.json"
    figures: dict[str, Any] = json.loads(path.read_text())["plans"] if path.exists() else {}
    for backbone in chosen or BACKBONES:
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder:
                graph = Path(folder) / "scorer.onnx"
                shape = write_graph(backbone, precision, graph)
                command: list[str | Path] = [sys.executable, "-m", "benchmarks.plans", "--one", graph, *map(str, shape)]
                answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            figures[f"{backbone}, {precision}"] = json.loads(answer)
            print(backbone, precision, answer, flush=True)
            record("tensorrt-rtx-plans", METHOD, {"library": versions("tensorrt-rtx-cu13-bindings"), "plans": figures})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(Path(sys.argv[2]), Shape(*map(int, sys.argv[3:])))))
    else:
        main()
