"""Measure scaling, from one GPU to all of this host's."""

from __future__ import annotations

from pscr_engine.cuda.driver import gpu_count

from .place import Place
from .result import Result, SkippedError
from .whole import score

_ROWS = 40_000


def run(place: Place, result: Result) -> None:
    """Measure images/s with 1 … N GPUs, and the share of N times one GPU's."""
    count = gpu_count()
    if count < 2:
        raise SkippedError("there is one GPU")
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        rates = {}
        for used in range(1, count + 1):
            devices = ",".join(f"cuda:{index}" for index in range(used))
            rows = round(_ROWS * used * min(1.0, place.seconds))
            rates[used] = score(place, bundle, "jpg", rows, devices)["images_per_second"]
        result.figures[backbone] = {
            "images/s": {str(used): round(value) for used, value in rates.items()},
            "scaling": {str(used): round(value / (used * rates[1]), 3) for used, value in rates.items()},
        }
