"""Compare this checkout with another one, an earlier version: whole runs of `score`, and its start-up, in pairs.

python -m benchmarks.versions CHECKOUT IMAGES   (a folder of images; 2,000 of them are taken, in turn)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from .common import CACHE, ROOT, answering_bundle, commit, record, spread, untrained_bundle

ROWS, PAIRS, STARTS = 2000, 5, 15
METHOD = (
    "The two checkouts in turn, A B B A, same interpreter and packages, whole processes. run: `pscr-engine score` of "
    f"{ROWS} images from disk to Parquet on all cores, by a graph that reads one byte per patch, so that all but "
    "inference counts; {pairs} pairs. start: `pscr-engine score` of one image with the shipped model, from command to "
    "prompt; {starts} pairs. help: `pscr-engine --help`. ratio: seconds of this checkout over those of the other, pair "
    "by pair; below 1 this one is faster."
).format(pairs=PAIRS, starts=STARTS)


def seconds(checkout: Path, arguments: list[str], folder: Path) -> float:
    """Time the command line of a checkout as a process."""
    shutil.rmtree(folder / "scores", ignore_errors=True)
    paths = os.pathsep.join(str(checkout / part) for part in (".", "export", "training"))
    command = [sys.executable, "-P", "-m", "pscr_engine", *arguments]
    start = perf_counter()
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, check=True, capture_output=True)
    taken = perf_counter() - start
    if arguments[0] == "score":
        status = json.loads((folder / "scores" / "_SUCCESS").read_text())["status"]
        assert list(status) == ["ok"], f"{checkout}: {status}"  # to fail is fast
    return taken


def compare(other: Path, arguments: list[str], folder: Path, pairs: int) -> dict[str, object]:
    """Run both checkouts in pairs, after one run each that is not counted."""
    times: dict[Path, list[float]] = {ROOT: [], other: []}
    for index in range(pairs + 1):
        for checkout in (ROOT, other) if index % 2 else (other, ROOT):
            taken = seconds(checkout, arguments, folder)
            if index:
                times[checkout].append(taken)
    ratios = np.array(times[ROOT]) / np.array(times[other])
    return {"this": spread(times[ROOT]), "other": spread(times[other]), "ratio": spread(ratios.tolist())}


def main(other: str, images: str) -> None:
    """Measure, and write `results/versions.json`."""
    checkout, folder = Path(other).resolve(), CACHE / "versions"
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(file for file in Path(images).resolve().rglob("*") if file.suffix in (".jpg", ".png"))
    lines = [str(found[row % len(found)]) for row in range(ROWS)]
    (folder / "many.csv").write_text("\n".join(["path", *lines]) + "\n")
    (folder / "one.csv").write_text(f"path\n{found[0]}\n")
    bundle = answering_bundle(untrained_bundle("resnet18")).path
    score = ["score", "--devices", "cpu", "--manifest"]
    figures = {
        "images": len(found),
        "other": subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "run": compare(checkout, [*score, "many.csv", "--bundle", str(bundle)], folder, PAIRS),
        "start": compare(checkout, [*score, "one.csv", "--precision", "fp32"], folder, STARTS),
        "help": compare(checkout, ["--help"], folder, STARTS),
    }
    print(record("versions", METHOD, {"this": commit(), **figures}).read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", metavar="CHECKOUT", help="folder of the other version")
    parser.add_argument("images", metavar="IMAGES", help="folder of images")
    arguments = parser.parse_args()
    main(arguments.checkout, arguments.images)
