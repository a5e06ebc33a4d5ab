"""Measure `pscr-engine score`, from images on disk to Parquet, against its slowest stage alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pscr_engine.backends.registry import create_backend
from pscr_engine.bundle import Bundle
from pscr_engine.cuda.backend import CudaBackend
from pscr_engine.cuda.batch_size import CANDIDATES, measure_batch_sizes
from pscr_engine.cuda.decoder import ImageDecoder

from .clock import rate
from .decode import processor_rate
from .place import Place
from .result import Result

_WARM_ROWS = 100
_SECONDS_PER_FIGURE = 20
_DECODE_BATCH = 64
_SHARE = 0.9
_BUSY = 95
_JPEG_TARGETS = {"resnet18": 8000, "resnet50": 3700}


def run(place: Place, result: Result) -> None:
    """Measure images/s, the share of the slowest stage's alone, and how busy the card is; for JPEG and PNG."""
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        for suffix in ("jpg", "png"):
            what = f"{backbone} {suffix}"
            alone = _stages_alone(place, bundle, suffix)
            score(place, bundle, suffix, _WARM_ROWS)  # the caches of files and libraries
            rows = max(100, round(min(alone.values()) * _SECONDS_PER_FIGURE * place.seconds))
            success, busy = _with_monitor(place, bundle, suffix, rows)
            reached, slowest = success["images_per_second"], min(alone, key=lambda name: alone[name])
            result.figures[what] = {
                "images/s": round(reached),
                "rows": rows,
                "start-up, seconds": success["startup_seconds"],
                "alone, images/s": {name: round(value) for name, value in alone.items()},
                "slowest alone": slowest,
                "share of it": round(reached / alone[slowest], 3),
                "GPU busy, %": busy,
                "stages, seconds": {name: stage["seconds"] for name, stage in success["stages"].items()},
            }
            result.target(f"{what}: share of the slowest stage alone ({slowest})", reached / alone[slowest], _SHARE)
            if suffix == "jpg" and backbone in _JPEG_TARGETS:
                result.target(f"{what}: images/s", reached, _JPEG_TARGETS[backbone])
            if busy is None:
                result.skipped[f"{what}: GPU busy"] = "no nvidia-smi"
            elif slowest == "infer":
                result.target(f"{what}: GPU busy, %", busy, _BUSY)


def score(
    place: Place, bundle: Bundle, suffix: str, rows: int, devices: str | None = None, *options: str
) -> dict[str, Any]:
    """Run `pscr-engine score` in a process of its own, and return what its _SUCCESS says."""
    process = start(place, bundle, suffix, rows, devices, *options)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return _success(place, rows)


def start(
    place: Place, bundle: Bundle, suffix: str, rows: int, devices: str | None = None, *options: str
) -> subprocess.Popen[str]:
    paths, manifest, out = place.images(suffix), place.folder / "manifest.csv", place.folder / "scores"
    manifest.write_text("path\n" + "".join(f"{paths[row % len(paths)]}\n" for row in range(rows)))
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest, "--bundle", bundle.path]
    command += ["--out", out, "--devices", devices or place.name, *options]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def _success(place: Place, rows: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place.folder / "scores" / "_SUCCESS").read_text())
    assert content["status"] == {"ok": rows}
    return content


def _with_monitor(place: Place, bundle: Bundle, suffix: str, rows: int) -> tuple[dict[str, Any], float | None]:
    """Run `score`, and measure the card's mean utilisation in the middle half, in percent; None without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return score(place, bundle, suffix, rows), None
    log = place.folder / "utilisation"
    query = ["nvidia-smi", f"--id={place.device}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with log.open("w") as file:
        monitor = subprocess.Popen([*query, "--loop-ms=200"], stdout=file, stderr=subprocess.DEVNULL)
        try:
            success = score(place, bundle, suffix, rows)
        finally:
            monitor.send_signal(signal.SIGTERM)
            monitor.wait()
    seen = [float(line) for line in log.read_text().split() if line.replace(".", "").isdigit()]
    during = seen[-max(1, round(success["seconds"] * 5)) :]
    middle = during[len(during) // 4 : -(len(during) // 4) or None]
    return success, round(float(np.mean(middle)), 1) if middle else None


def _stages_alone(place: Place, bundle: Bundle, suffix: str) -> dict[str, float]:
    """Measure images per second of fetch, decode and infer, each with nothing else running."""
    paths = place.images(suffix)
    alone = {"fetch": rate(lambda: _read(paths), lambda: None, len(paths), place.seconds)}
    backend = create_backend(bundle, device=place.name)
    assert isinstance(backend, CudaBackend)
    with closing(backend), backend.gpu.current():
        sizes = tuple(
            size for size in CANDIDATES if not backend.name.startswith("tensorrt") or size <= backend.batch_size
        )
        alone["infer"] = max(measure_batch_sizes(backend.engine, backend.gpu, backend.shape, sizes).values())
        decoder = backend.decoder
        on_gpu = suffix == "jpg" and decoder is not None
        if decoder is not None and on_gpu:
            alone["decode"] = _decode_rate(place, decoder, backend.gpu.stream())
    if not on_gpu:
        alone["decode"] = processor_rate(place, suffix)
    return alone


def _decode_rate(place: Place, decoder: ImageDecoder, stream: Any) -> float:
    paths = place.images("jpg")
    encoded = [decoder.read(paths[index % len(paths)].read_bytes()) for index in range(_DECODE_BATCH)]
    batch = [each for each in encoded if each is not None]
    assert all(decoder.decode(batch, stream.handle)), "the decoder refuses ordinary JPEGs"
    return rate(lambda: decoder.decode(batch, stream.handle), stream.synchronize, len(batch), place.seconds)


def _read(paths: list[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 2**30)
        os.close(descriptor)
