"""Measure what INT8 is worth on this processor: speed, share of the arithmetic peak, operators, and accuracy.

python -m benchmarks.int8 [speed] [accuracy] [backbones [NAME ...]]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pscr_export.backbones import BACKBONES
from pscr_export.export import ExportConfig, export_bundle
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.train import train
from torch.utils.flop_counter import FlopCounterMode

from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.bench.ceilings import instruction_peak
from pscr_engine.bundle import Bundle
from pscr_engine.host import int8_saturates, usable_cpus

from .common import CACHE, RESULTS, ROOT, random_patches, record, spread, untrained_bundle, words

ROUNDS = 4
SPEED_METHOD = (
    "Random weights, OPS, patches of noise, ten exemplars. Per round each way scores the same images, in turn: 'one "
    "run on all cores' calls the session from one thread, 'a run per core' from as many threads as there are cores, "
    "on one session that computes in the calling thread. Peak: vector instructions on registers "
    "(pscr_engine/bench/peak.c), on all cores, before and after. Multiply-adds: PyTorch's count of the trunk's. "
    "Operators: ONNX Runtime's profile of 20 runs of one image on one core; operators of the head are those after "
    "the features."
)
ACCURACY_METHOD = (
    "Networks trained here from random weights on 960 of 1200 made-up images (seed 1; validation SRCC given), "
    "exported with 400 of the training images as exemplars; INT8 is calibrated on 100 of them. Parity: INT8 against "
    "PyTorch FP32 on 100 others of them; every way to calibrate that was tried. "
    "Parity that fails is kept here on request. Labels go from 1 to 5 or so; allowed is 2% of their range."
)
BACKBONES_METHOD = (
    "Every backbone with the generated weights of tests/reference (they are not trained: scores mean nothing, but "
    "differ between images), ten exemplars; INT8 is calibrated on half of the twelve query images and measured on the "
    "others and the exemplars, as `export` does. Allowed: 2% of the label range, SRCC 0.995. A network that misses "
    "that gets no bundle from `export`; here it is kept for its figures."
)
# Few epochs: enough for scores that differ between images. VGG-16 has no batch norm and wants small steps.
TRAINED: dict[str, dict[str, Any]] = {
    "resnet18": {"patch_size": 48, "epochs": 18, "learning_rate": 5e-4},
    "resnet50": {"patch_size": 48, "epochs": 5, "learning_rate": 5e-4},
    "vgg16": {"patch_size": 48, "epochs": 4, "learning_rate": 1e-4},
    "inceptionv4": {"patch_size": 80, "epochs": 5, "learning_rate": 5e-4},
}


def main(sections: list[str]) -> None:
    chosen = [name for name in sections if name in BACKBONES]
    for name, section in (("speed", speed), ("accuracy", accuracy), ("backbones", lambda: backbones(chosen))):
        if name in sections or not sections:
            print(section().read_text())


def speed() -> Path:
    before, figures = _peak(), {}
    for backbone, images in (("resnet18", 48), ("resnet50", 24)):
        figures[backbone] = _speed(untrained_bundle(backbone, ("fp32", "int8")), images)
    after = _peak()
    peaks = {kind: max(before[kind], after[kind]) for kind in before}
    for backbone, figure in figures.items():
        macs = multiply_adds(backbone)
        figure["GMAC per image"] = round(macs, 2)
        for way, measured in figure["ways"].items():
            top = peaks.get("int8" if "int8" in way else "fp32")
            if top:
                measured["share_of_peak"] = round(measured["images_per_second"]["median"] * macs / top, 3)
    return record("int8-speed", SPEED_METHOD, {"peak, GMAC/s": {"before": before, "after": after}, **figures})


def _speed(bundle: Bundle, images: int) -> dict[str, Any]:
    ways = {
        f"{precision}, {name}, batch {batch}": (_backend(bundle, precision, throughput), runs, batch)
        for precision in ("fp32", "int8")
        for name, throughput, runs in (("one run on all cores", False, 1), ("a run per core", True, usable_cpus()))
        for batch in (1, 4)
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, (backend, runs, batch) in ways.items():
            patches = random_patches(bundle, batch)
            with ThreadPoolExecutor(runs) as pool:
                start = perf_counter()
                list(pool.map(backend.score, repeat(patches, images // batch)))
                rate = images / (perf_counter() - start)
            if number:
                rates[way].append(rate)
    return {
        "ways": {way: {"images_per_second": spread(values)} for way, values in rates.items()},
        "operators": {precision: operators(bundle, precision) for precision in ("fp32", "int8")},
    }


def _backend(bundle: Bundle, precision: str, throughput: bool) -> OnnxRuntimeBackend:
    # Arrangements are compared for all precisions: "int8" gets a run per core whatever the number of cores.
    name = "int8" if throughput else precision
    return OnnxRuntimeBackend(bundle.graph_path(precision), bundle.exemplars, precision=name, throughput=throughput)


def operators(bundle: Bundle, precision: str) -> dict[str, Any]:
    """Profile a graph on one core: milliseconds per image by type of operator, and of the slowest operators."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(bundle.graph_path(precision)), options, providers=["CPUExecutionProvider"]
        )
        hidden, labels = bundle.exemplars.hidden, bundle.exemplars.labels
        feed = {"patches": random_patches(bundle, 1), "exemplar_hidden": hidden, "exemplar_labels": labels}
        for _ in range(20):
            session.run(["score"], feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    kinds: Counter[str] = Counter()
    single: Counter[str] = Counter()
    for event in events:
        if event.get("cat") != "Node" or event["args"]["op_name"] == "Scan":  # the operators inside are listed, too
            continue
        if event["name"].endswith("kernel_time"):
            milliseconds = event["dur"] / 20e3
            kinds[event["args"]["op_name"]] += milliseconds
            shape: list[int] = next(iter(event["args"]["input_type_shape"][0].values()), [])
            single[f"{event['args']['op_name']} {event['args']['node_index']} of {shape}"] += milliseconds
    return {
        "milliseconds": round(sum(kinds.values()), 2),
        "by type": {kind: round(value, 3) for kind, value in kinds.most_common(10)},
        "slowest": {name: round(value, 3) for name, value in single.most_common(8)},
    }


def multiply_adds(backbone: str) -> float:
    """Count the trunk's multiply-adds for the nine patches of an image, in units of 10⁹."""
    spec = BACKBONES[backbone]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        spec.build().eval()(torch.zeros(1, 3, spec.patch_size, spec.patch_size))
    return float(9 * counter.get_total_flops() / 2e9)


def _peak() -> dict[str, float]:
    """Measure the processor's arithmetic peak anew, whatever was measured before."""
    instruction_peak.cache_clear()
    return instruction_peak()


def accuracy() -> Path:
    figures = {}
    for backbone, settings in TRAINED.items():
        source = Source("synthetic", str(CACHE / "synthetic-1200"), images=1200)
        base = TrainConfig(source, backbone=backbone, weights="none", pairs="all", batch_size=16)
        config = replace(base, out=CACHE / f"trained-{backbone}", **settings)
        trained = train(config)
        out = CACHE / f"trained-{backbone}.pscr"
        bundle = export_bundle(
            ExportConfig(
                trained.best,
                out=out,
                precisions=("fp32", "int8"),
                num_exemplars=400,
                accept_parity=frozenset({"int8"}),
                overwrite=True,
            )
        )
        graph = bundle.info.graphs["int8"]
        figures[backbone] = {
            "training": {**settings, "val_srcc": round(max(entry["val_srcc"] for entry in trained.history), 3)},
            "parity": graph.parity.as_json(),
            **(graph.quantisation or {}),
        }
        print(backbone, figures[backbone]["parity"], flush=True)
    return record("int8-accuracy", ACCURACY_METHOD, figures)


def backbones(chosen: list[str]) -> Path:
    """Measure INT8's parity with generated weights, of the eight backbones or of the chosen ones."""
    # Where sums of products overflow, other ways are tried, and others pass.
    name = "int8-backbones-no-vnni" if int8_saturates() else "int8-backbones"
    path = RESULTS / f"{name}.json"
    figures = json.loads(path.read_text())["backbones"] if chosen and path.exists() else {}
    reference = ROOT / "tests" / "reference"
    for backbone in chosen or BACKBONES:
        checkpoint, out = CACHE / f"reference-{backbone}.pt", CACHE / f"reference-{backbone}-int8.pscr"
        command = [sys.executable, str(reference / "make_reference_ckpt.py"), backbone, "--seed", "1", "--compact"]
        subprocess.run([*command, "--out", checkpoint], check=True, capture_output=True)
        bundle = export_bundle(
            ExportConfig(
                checkpoint,
                reference / "images" / "exemplars.csv",
                out,
                precisions=("fp32", "int8"),
                calibration=str(reference / "images" / "queries"),
                accept_parity=frozenset({"int8"}),
                overwrite=True,
            )
        )
        graph = bundle.info.graphs["int8"]
        figures[backbone] = {"parity": graph.parity.as_json(), **(graph.quantisation or {})}
        print(backbone, figures[backbone]["parity"], flush=True)
        checkpoint.unlink()
        shutil.rmtree(out)
        path = record(name, BACKBONES_METHOD, {"backbones": figures})
    return path


if __name__ == "__main__":
    main(words(__doc__, ("speed", "accuracy", "backbones", *BACKBONES)))
