"""Measure what the pipeline costs: against the bare session or engine, a plain loop, and the decoder alone.

python -m benchmarks.pipeline [network] [engines] [overhead]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice, repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from pscr_engine.bench.stages import plain_loop
from pscr_engine.bundle import Bundle
from pscr_engine.errors import PscrError
from pscr_engine.host import keep_freed_memory, usable_cpus
from pscr_engine.models import DEFAULT_MODEL, find_model
from pscr_engine.records import Query
from pscr_engine.stages.decode import DecodeOptions, decode
from pscr_engine.stages.infer import PatchScorer

from .common import (
    CACHE,
    answering_bundle,
    host_backend,
    made_up_images,
    random_patches,
    record,
    spread,
    untrained_bundle,
    words,
)

ROUNDS = 4
INFER_IMAGES = 256
DECODE_IMAGES = 24_000
FAST = ("--batch-size", "64", "--chunk-rows", "1024")
METHOD = (
    "512×512 JPEG (quality 92, made-up scenes) on disk, in the page cache. Within a round each way runs once over all "
    "images, in turn; images/s, and ratios pair by pair within a round. resnet18, FP32, OPS, ten exemplars, batch 1. "
    "'session': ONNX Runtime fed ready patches. 'loop': fetch, decode, sample, infer, one image after another. "
    "'score': `pscr-engine score`, in its own processes, manifest to Parquet with fsync; its own figure, from when "
    "a worker is ready to the last part. 'no inference': a graph that looks at one byte per patch, at batch 64, as a "
    "GPU would take them, chunks of 1024; 'decoder': the decode stage alone, of bytes in memory; 'pillow': open from "
    "file, convert to RGB, make an array, as the reference does; both in as many threads as there are cores."
)
ENGINES_METHOD = (
    "As `pipeline-cpu`, ten exemplars with resnet18, those of the shipped model with it. 'engine': fed ready patches "
    "by as many threads, in batches of the size, that a run uses. 'engine and decoder': fetch, decode, sample and "
    "infer image by image in as many threads as there are cores, which is all that has to be computed. 'score': "
    "`pscr-engine score` with this precision and engine."
)


def whole_run(bundle: Bundle, count: int, devices: str = "cpu", *options: str) -> float:
    paths = made_up_images()
    manifest, out = CACHE / f"manifest-{count}.csv", CACHE / "scores"
    manifest.write_text("path\n" + "".join(f"{paths[row % len(paths)]}\n" for row in range(count)))
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", str(manifest)]
    command += ["--bundle", str(bundle.path), "--out", str(out), "--devices", devices, *options]
    subprocess.run(command, check=True, capture_output=True)
    success = json.loads((out / "_SUCCESS").read_text())
    assert success["status"] == {"ok": count}
    return float(success["images_per_second"])


def bare_session(bundle: Bundle, backend: PatchScorer, count: int) -> None:
    patches = random_patches(bundle, 1)
    for _ in range(count):
        backend.score(patches)


def decoder(count: int) -> None:
    """Decode bytes in memory with the decode stage, in as many threads as there are cores."""
    data = [path.read_bytes() for path in made_up_images()]

    def one(row: int) -> None:
        query = Query(row, data=data[row % len(data)])
        decode(query, DecodeOptions())
        assert query.ok

    with ThreadPoolExecutor(usable_cpus()) as pool:
        list(pool.map(one, range(count)))


def pillow(count: int) -> None:
    """Decode files as the reference does: open, convert to RGB, make an array; in as many threads as cores."""
    paths = made_up_images()

    def one(row: int) -> None:
        with Image.open(paths[row % len(paths)]) as image:
            assert np.asarray(image.convert("RGB")).ndim == 3

    with ThreadPoolExecutor(usable_cpus()) as pool:
        list(pool.map(one, range(count)))


def seconds_to_rate(way: Callable[[], object], count: int) -> float:
    start = perf_counter()
    answer = way()
    return answer if isinstance(answer, float) else count / (perf_counter() - start)


def rates(ways: dict[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            rate = seconds_to_rate(way, count)
            if number:  # the first round warms up
                out[name].append(rate)
    return out


def compared(measured: dict[str, list[float]], *bases: str) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {
            "images_per_second": spread(values),
            **{
                f"share_of_{base}": spread([mine / other for mine, other in zip(values, measured[base], strict=True)])
                for base in bases
            },
        }
        for name, values in measured.items()
    }


def network() -> Path:
    """Measure a run against the bare session, with resnet18."""
    bundle = untrained_bundle("resnet18")
    backend = host_backend(bundle)
    measured = rates(
        {
            "session": lambda: bare_session(bundle, backend, INFER_IMAGES),
            "loop": lambda: plain_loop(bundle, backend, [*islice(cycle(map(str, made_up_images())), INFER_IMAGES)]),
            "score": lambda: whole_run(bundle, INFER_IMAGES),
            "score, 2 workers": lambda: whole_run(bundle, INFER_IMAGES, "cpu,cpu"),
        },
        INFER_IMAGES,
    )
    return record("pipeline-cpu", METHOD, {"resnet18": compared(measured, "session")})


def engines() -> Path:
    """Measure runs in INT8, where the rest weighs most, against the bare engine at its best, on both engines."""
    figures: dict[str, Any] = {}
    for name, bundle in (
        ("resnet18", untrained_bundle("resnet18", ("fp32", "int8"))),
        ("shipped", find_model(DEFAULT_MODEL).open()),
    ):
        for kind in ("onnxruntime", "openvino"):
            run = f"{name}, int8, {kind}"
            try:
                measured = rates(_ways_of_engine(bundle, "int8", kind), INFER_IMAGES)
                figures[run] = compared(measured, "engine", "engine and decoder")
            except PscrError as error:  # an engine whose scores are too far off is refused
                figures[run] = {"left_out": str(error)}
            print(run, json.dumps(figures[run]), flush=True)
    return record("pipeline-engines-cpu", ENGINES_METHOD, {"runs": figures})


def _ways_of_engine(bundle: Bundle, precision: str, kind: str) -> dict[str, Callable[[], object]]:
    backend = host_backend(bundle, backend=kind, device="cpu", precision=precision, throughput=True)
    patches = random_patches(bundle, backend.batch_size)
    paths = [*islice(cycle(map(str, made_up_images())), INFER_IMAGES)]

    def engine() -> None:
        with ThreadPoolExecutor(backend.runs) as pool:
            list(pool.map(backend.score, repeat(patches, INFER_IMAGES // backend.batch_size)))

    def engine_and_decoder() -> None:
        with ThreadPoolExecutor(usable_cpus()) as pool:
            list(
                pool.map(
                    lambda some: plain_loop(bundle, backend, some),
                    [paths[start : start + 8] for start in range(0, len(paths), 8)],
                )
            )

    options = ("--backend", kind, "--precision", precision)
    return {
        "engine": engine,
        "engine and decoder": engine_and_decoder,
        "score": lambda: whole_run(bundle, INFER_IMAGES, "cpu", *options),
    }


def overhead() -> Path:
    """Measure a run against the decoder alone, where inference costs nothing."""
    answers = answering_bundle(untrained_bundle("resnet18"))
    measured = rates(
        {
            "decoder": lambda: decoder(DECODE_IMAGES),
            "pillow": lambda: pillow(DECODE_IMAGES),
            "score": lambda: whole_run(answers, DECODE_IMAGES, "cpu", *FAST),
            "score, 2 workers": lambda: whole_run(answers, DECODE_IMAGES, "cpu,cpu", *FAST),
        },
        DECODE_IMAGES,
    )
    return record("pipeline-overhead-cpu", METHOD, {"no inference": compared(measured, "decoder", "pillow")})


def main(sections: list[str]) -> None:
    keep_freed_memory()  # as the runs do
    for name, section in (("network", network), ("engines", engines), ("overhead", overhead)):
        if name in sections or not sections:
            path = section()
            print(path.read_text())


if __name__ == "__main__":
    main(words(__doc__, ("network", "engines", "overhead")))
