"""Measure the peak memory of a run against the number of rows.

python -m benchmarks.memory
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from .common import CACHE, answering_bundle, record, untrained_bundle, words

ROWS = (100_000, 10_000_000)
METHOD = (
    "`pscr-engine score` over a Parquet manifest whose rows name 64 PNG files of 16×16 pixels in turn; a graph that "
    "looks at one byte per patch of 8×8 pixels, batch 64, chunks by the program's own rule; peak resident set of the "
    "process, as the kernel counts it (ru_maxrss of the process waited for)."
)


def manifest(rows: int) -> Path:
    folder = CACHE / "tiny"
    if not folder.exists():
        folder.mkdir(parents=True)
        dice = np.random.default_rng(0)
        for index in range(64):
            Image.fromarray(dice.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{index:02d}.png")
    path = folder / f"{rows}.parquet"
    if not path.exists():
        with pq.ParquetWriter(path, pa.schema([("path", pa.string())])) as writer:
            for start in range(0, rows, 500_000):
                names = [f"{row % 64:02d}.png" for row in range(start, min(rows, start + 500_000))]
                writer.write_table(pa.table({"path": names}))
    return path


def peak(rows: int) -> dict[str, Any]:
    out = CACHE / "memory-scores"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest(rows), "--out", out]
    bundle = answering_bundle(untrained_bundle("resnet18"), 8)
    process = subprocess.Popen([*map(str, command), "--bundle", str(bundle.path), "--batch-size", "64"])
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    success = json.loads((out / "_SUCCESS").read_text())
    assert success["status"] == {"ok": rows}
    return {
        "rows": rows,
        "peak_mb": round(usage.ru_maxrss / 1024, 1),
        "images_per_second": success["images_per_second"],
        "seconds": success["seconds"],
        "parts": success["parts"],
    }


def main() -> None:
    figures = []
    for rows in ROWS:
        figures.append(peak(rows))
        print(figures[-1], flush=True)
    first, last = figures[0]["peak_mb"], figures[-1]["peak_mb"]
    print(record("memory", METHOD, {"runs": figures, "peak_of_most_rows_to_fewest": round(last / first, 4)}))


if __name__ == "__main__":
    words(__doc__, ())
    main()
