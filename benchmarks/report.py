"""Measure peak memory and time of `report` and `select` over a run of millions of rows.

python -m benchmarks.report [ROWS]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pscr_engine.manifests import open_manifest
from pscr_engine.output.parts import Parts
from pscr_engine.stages.sink import output_schema

from .common import record

ROWS = 10_000_000
METHOD = (
    "Each command as a process of its own over a made-up complete run of that many rows in parts of 8,192, with a "
    "Parquet manifest of path, model (8 values) and prompt; scores are normal, 1% of the rows failed for one of two "
    "reasons; rows name 64 PNG files in turn. Wall-clock seconds; peak resident set as the kernel counts it (ru_maxrss "
    "of the process waited for). The kept rows' number is checked against NumPy's."
)
_CHUNK = 8192
# A small process starts the command: at a fork, the kernel counts the parent's memory as the child's.
_WATCH = """
import os, sys
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, usage = os.wait4(process, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
_MODELS = np.array([f"model-{index}" for index in range(8)])


def chunk(start: int, rows: int, seed: int) -> dict[str, Any]:
    """Make up the columns of some rows, the same for the same start and seed."""
    dice = np.random.default_rng([seed, start])
    failed = dice.random(rows) < 0.01
    return {
        "row": np.arange(start, start + rows),
        "score": dice.normal(3, 0.6, rows).astype(np.float32),
        "std": dice.gamma(9, 0.05, rows).astype(np.float32),
        "failed": failed,
        "missing": dice.random(rows) < 0.5,
    }


def make(folder: Path, rows: int) -> None:
    """Make the manifest, its images and two runs."""
    images = folder / "images"
    images.mkdir()
    dice = np.random.default_rng(0)
    for index in range(64):
        Image.fromarray(dice.integers(0, 256, (256, 256, 3), np.uint8)).save(images / f"{index:02d}.png")
    names = np.array([f"{index:02d}.png" for index in range(64)])
    types = pa.schema([("path", pa.string()), ("model", pa.string()), ("prompt", pa.string())])
    with pq.ParquetWriter(images / "m.parquet", types) as writer:
        for start in range(0, rows, 500_000):
            numbers = np.arange(start, min(rows, start + 500_000))
            prompts = [f"made-up prompt number {number}" for number in numbers]
            columns = [names[numbers % 64], _MODELS[numbers * 7 % 11 % 8], prompts]
            writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=types))
    fingerprint = open_manifest(images / "m.parquet").fingerprint
    for name, seed in (("scores", 0), ("other", 1)):
        make_run(folder / name, images, fingerprint, rows, names, seed)


def make_run(out: Path, images: Path, fingerprint: str, rows: int, names: np.ndarray, seed: int) -> None:
    """Write a run's output: `_run.json`, the parts, `_SUCCESS`."""
    out.mkdir()
    identity = {
        "bundle": f"{seed:064x}",
        "manifest": fingerprint,
        "image_folder": str(images.resolve()),
        "precision": "fp32",
        "root": None,
        "chunk_rows": _CHUNK,
        "max_pixels": 10**8,
    }
    columns = {"path_column": None, "id_column": None, "root": None}
    settings = {"manifest": str(images / "m.parquet"), "bundle": "made-up", "out": str(out), "columns": columns}
    (out / "_run.json").write_text(json.dumps({"identity": identity, "settings": settings}))
    schema, parts = output_schema(None, None), Parts(out)
    failures = 0
    for index, start in enumerate(range(0, rows, _CHUNK)):
        made = chunk(start, min(_CHUNK, rows - start), 0)
        if seed:  # the same failures, other scores
            made["score"] += np.random.default_rng([seed, start]).normal(0.1, 0.2, len(made["row"])).astype(np.float32)
        failed, missing = made["failed"], made["missing"]
        failures += int(failed.sum())
        error = np.where(missing, "no such file: /gone.png", "OSError: truncated")
        size = pa.array(np.full(len(failed), 256, np.int32), mask=failed)
        table = [
            pa.array(made["row"]),
            pa.array(names[made["row"] % 64], pa.string()),
            pa.array(made["score"], mask=failed),
            pa.array(made["std"], mask=failed),
            pa.array(np.where(failed, np.where(missing, "missing", "undecodable"), "ok"), pa.string()),
            pa.array(error, pa.string(), mask=~failed),
            size,
            size,
        ]
        parts.write(index, pa.table(table, schema=schema))
    success = {"rows": rows, "parts": index + 1, "status": {"ok": rows - failures}, "scored_by_last_run": rows}
    (out / "_SUCCESS").write_text(json.dumps(success))


def expected(rows: int, top: float) -> int:
    """Count the images that `select --top` must keep: that share of the scored rows, rounded up."""
    made = (chunk(start, min(_CHUNK, rows - start), 0) for start in range(0, rows, _CHUNK))
    return int(np.ceil(top * sum(int((~each["failed"]).sum()) for each in made)))


def measure(folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-S", "-c", _WATCH, sys.executable, "-m", "pscr_engine", *arguments]
    start = perf_counter()
    watched = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return {
        "command": " ".join(["pscr-engine", *arguments]),
        "seconds": round(perf_counter() - start, 1),
        "peak_mb": round(int(watched.stdout) / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "rows", nargs="?", type=int, default=ROWS, metavar="ROWS", help="of the run, %(default)s if not given"
    )
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="pscr-engine-report-") as temporary:
        folder = Path(temporary)
        make(folder, rows)
        figures = []
        for arguments in (
            ["report", "scores"],
            ["report", "scores", "--by", "model", "--caption", "prompt"],
            ["report", "scores", "--compare", "other"],
            ["select", "scores", "--top", "10%"],
            ["select", "scores", "--top", "1000", "--per-group", "model"],
        ):
            figures.append(measure(folder, arguments))
            if arguments[0] == "report":
                figures[-1]["page_mb"] = round((folder / "report.html").stat().st_size / 1e6, 2)
            else:
                figures[-1]["kept"] = pq.read_metadata(folder / "kept.parquet").num_rows
            print(figures[-1], flush=True)
        assert figures[3]["kept"] == expected(rows, 0.1)
        assert figures[4]["kept"] == 1000 * len(_MODELS)
    print(record("report", METHOD, {"rows": rows, "runs": figures}))


if __name__ == "__main__":
    main()
