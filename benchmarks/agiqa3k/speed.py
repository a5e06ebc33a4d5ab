"""Measure images per second of the shipped model beside ResNet-18, from JPEG files to Parquet."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from pscr_training.data.splits import split

from pscr_engine.bundle import Bundle
from pscr_engine.models import DEFAULT_MODEL, find_model

from ..common import record, spread, untrained_bundle
from .fidelity import write_manifest
from .recipes import Place

ROUNDS = 3
METHOD = (
    "`pscr-engine score` over the 600 test images of AGIQA-3K's prompt-disjoint split (512×512 JPEGs), each way in a "
    "process of its own, in turn, three rounds after one that is not counted. images_per_second: as `_SUCCESS` says, "
    "without start-up; wall_seconds: the whole process. ResNet-18 has random weights and ten exemplars."
)


def speed(place: Place) -> Path:
    """Measure both models in FP32 and INT8, and write the record."""
    ways = {
        (name, precision): bundle
        for name, bundle in (
            (DEFAULT_MODEL, find_model(DEFAULT_MODEL).open()),
            ("resnet18", untrained_bundle("resnet18", ("fp32", "int8"))),
        )
        for precision in ("fp32", "int8")
        if precision in bundle.info.graphs
    }
    by_way: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        items = split(place.source().open(), "prompt-disjoint", seed=1).test
        manifest = write_manifest(Path(folder) / "test.csv", items)
        for number in range(ROUNDS + 1):
            for (name, precision), bundle in ways.items():
                facts = _run(manifest, bundle, precision, Path(folder) / f"{name}-{precision}-{number}")
                if number:
                    rates = by_way.setdefault(f"{name}, {precision}", {"images_per_second": [], "wall_seconds": []})
                    for key, value in facts.items():
                        rates[key].append(value)
    figures = {way: {key: spread(values) for key, values in rates.items()} for way, rates in by_way.items()}
    print(json.dumps(figures, indent=1))
    return record("agiqa-3k-speed", METHOD, {"images": len(items), "ways": figures})


def _run(manifest: Path, bundle: Bundle, precision: str, out: Path) -> dict[str, Any]:
    command: list[str | Path] = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest, "--root", "/"]
    start = perf_counter()
    subprocess.run(
        [*command, "--bundle", bundle.path, "--precision", precision, "--devices", "cpu", "--out", out],
        check=True,
        capture_output=True,
    )
    wall = perf_counter() - start
    done = json.loads((out / "_SUCCESS").read_text())
    assert list(done["status"]) == ["ok"], done["status"]
    return {"images_per_second": done["images_per_second"], "wall_seconds": wall}
