"""OpenVINO on the same ONNX graph, with asynchronous requests. Option: int8 (quantised by NNCF), bf16 or fp32."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from ..common import CACHE
from .job import Job, main, patches_of

_CALIBRATION = 64
_AHEAD = 8


def prepare(job: Job) -> Callable[[], None]:
    kind = job.options[0]
    core = openvino.Core()
    model = core.read_model(_quantised(job) if kind == "int8" else job.bundle.graph_path("fp32"))
    D, P = job.bundle.info.sampling.patches, job.bundle.info.patch_size
    model.reshape({"patches": [D, P, P, 3], "exemplar_hidden": list(job.bundle.exemplars.hidden.shape),
                   "exemplar_labels": [job.bundle.exemplars.count]})  # fmt: skip
    precision = {"int8": "f32", "bf16": "bf16", "fp32": "f32"}[kind]
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(model, "CPU", settings)
    queue = openvino.AsyncInferQueue(compiled)
    scores = np.zeros(job.rows, np.float32)

    def done(request: Any, row: int) -> None:
        if row >= 0:
            scores[row] = request.get_tensor("score").data[0]

    queue.set_callback(done)
    inputs = {"exemplar_hidden": job.bundle.exemplars.hidden, "exemplar_labels": job.bundle.exemplars.labels}
    for _ in range(2 * len(queue)):
        queue.start_async({"patches": np.zeros((D, P, P, 3), np.uint8), **inputs}, -1)
    queue.wait_all()
    return partial(_work, job, queue, inputs, scores)


def _work(job: Job, queue: Any, inputs: dict[str, np.ndarray], scores: np.ndarray) -> None:
    paths = job.paths
    with ThreadPoolExecutor(2) as pool:  # decoding beside inference, a few images ahead
        ahead = [pool.submit(patches_of, job, path) for path in paths[:_AHEAD]]
        for row in range(job.rows):
            patches = ahead.pop(0).result()
            if row + _AHEAD < job.rows:
                ahead.append(pool.submit(patches_of, job, paths[row + _AHEAD]))
            queue.start_async({"patches": patches, **inputs}, row)
    queue.wait_all()
    job.write(scores.tolist())


def _quantised(job: Job) -> Path:
    """Quantise the FP32 graph by NNCF's post-training quantisation; the file is kept for the next round."""
    content = hashlib.sha256(job.bundle.graph_path("fp32").read_bytes()).hexdigest()[:16]
    path = CACHE / f"nncf-{content}.xml"
    if not path.exists():
        import nncf

        model = openvino.Core().read_model(job.bundle.graph_path("fp32"))
        cache = {"exemplar_hidden": job.bundle.exemplars.hidden, "exemplar_labels": job.bundle.exemplars.labels}
        items = [{"patches": patches_of(job, path), **cache} for path in job.paths[:_CALIBRATION]]
        quantised = nncf.quantize(model, nncf.Dataset(items), preset=nncf.QuantizationPreset.MIXED)
        part = path.with_name(f"part-{os.getpid()}-{path.name}")
        openvino.save_model(quantised, part, compress_to_fp16=False)
        part.with_suffix(".bin").replace(path.with_suffix(".bin"))
        part.replace(path)
    return path


if __name__ == "__main__":
    main(prepare, "openvino", "nncf")
