"""Measure the whole path with one and with two workers on one GPU, by backend: 120,000 rows of JPEGs."""

from __future__ import annotations

from pscr_engine.backends.tensorrt.library import RTX

from .place import Place
from .result import Result
from .whole import score

_ROWS = 120_000
_WARM_ROWS = 200


def run(place: Place, result: Result) -> None:
    """Measure images/s; a `place.seconds` below 1 takes that share of the 120,000 rows."""
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        rows = max(_WARM_ROWS, round(_ROWS * min(1.0, place.seconds)))
        for backend in ("onnxruntime", RTX.name):
            for devices in (place.name, f"{place.name},{place.name}"):
                what = f"{backbone} {backend}, workers: {len(devices.split(','))}"
                try:
                    score(place, bundle, "jpg", _WARM_ROWS, devices, "--backend", backend)
                    success = score(place, bundle, "jpg", rows, devices, "--backend", backend)
                except AssertionError as error:
                    result.skipped[what] = str(error)[-300:]
                    continue
                stages = {name: round(each["seconds"], 2) for name, each in success["stages"].items()}
                result.figures[what] = {
                    "images/s": round(success["images_per_second"]),
                    "rows": rows,
                    "start-up, seconds": success["startup_seconds"],
                    "stages, seconds": stages,
                    "decoding_verified": success.get("decoding_verified"),
                }
