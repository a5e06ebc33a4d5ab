"""Measure two bundles in one pass against two runs, one after the other: where decoding is the limit, and where not.

python -m benchmarks.two_bundles [--dry-run]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pscr_engine.bundle import Bundle
from pscr_engine.models import DEFAULT_MODEL, find_model

from .common import CACHE, answering_bundle, made_up_images, record, spread, untrained_bundle

ROUNDS = 3
FAST = ("--batch-size", "64", "--chunk-rows", "1024")
METHOD = (
    "512×512 JPEG (quality 92, made-up scenes) on disk, in the page cache. `pscr-engine score` in its own processes; "
    "seconds from when a worker is ready to the last part. Within a round 'first', 'second' and 'both' run in turn; "
    "'times as fast' is ('first' + 'second') / 'both' within a round, after one that warms up. "
    "'no inference, same sampling': two graphs that look at one byte per patch, OPS of 224 pixels, batch 64; "
    "'no inference, two samplings': one with 224, one with 299 pixels. "
    "'networks': the shipped model and resnet18 with random weights, FP32, ONNX Runtime."
)


def seconds_of(bundles: Sequence[tuple[str, Bundle]], count: int, options: Sequence[str]) -> float:
    paths = made_up_images()
    manifest, out = CACHE / f"manifest-{count}.csv", CACHE / "two-bundles"
    manifest.write_text("path\n" + "".join(f"{paths[row % len(paths)]}\n" for row in range(count)))
    shutil.rmtree(out, ignore_errors=True)
    command: list[str | Path] = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest, "--out", out]
    for name, bundle in bundles:
        command += ["--bundle", f"{name}={bundle.path}" if len(bundles) > 1 else str(bundle.path)]
    subprocess.run([*command, "--devices", "cpu", *options], check=True, capture_output=True)
    success = json.loads((out / "_SUCCESS").read_text())
    assert success["status"] == {"ok": count}
    return float(success["seconds"])


def compared(first: Bundle, second: Bundle, count: int, options: Sequence[str]) -> dict[str, object]:
    ways = {
        "first": [("a", first)],
        "second": [("b", second)],
        "both": [("a", first), ("b", second)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, bundles in ways.items():
            taken = seconds_of(bundles, count, options)
            if number:  # the first round warms up
                seconds[name].append(taken)
    pairs = zip(seconds["first"], seconds["second"], seconds["both"], strict=True)
    return {
        "images": count,
        **{f"seconds, {name}": spread(values) for name, values in seconds.items()},
        "times as fast": spread([(one + two) / both for one, two, both in pairs]),
    }


def main() -> None:
    """Measure, and record the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print the figures, but don't record them")
    dry_run = parser.parse_args().dry_run
    like = untrained_bundle("resnet18")
    answers, larger = answering_bundle(like), answering_bundle(like, 299)
    engine = ("--precision", "fp32", "--backend", "onnxruntime")
    figures = {}
    for name, first, second, count, options in (
        ("no inference, same sampling", answers, answers, 4096, FAST),
        ("no inference, two samplings", answers, larger, 4096, FAST),
        ("networks", find_model(DEFAULT_MODEL).open(), like, 96, engine),
    ):
        figures[name] = compared(first, second, count, options)
        print(name, json.dumps(figures[name]), flush=True)
    if not dry_run:
        record("two-bundles-cpu", METHOD, figures)


if __name__ == "__main__":
    main()
