"""Measure what `score --known` saves, and its memory by how many rows are known.

python -m benchmarks.known [savings] [memory]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .common import CACHE, RESULTS, answering_bundle, made_up_images, record, untrained_bundle, words

KNOWN, ALL = 100_000, 110_000
MANY = (100_000, 1_000_000, 10_000_000)
PART_ROWS = 8192
METHOD = (
    "`pscr-engine score` in processes of its own; 512×512 JPEG (quality 92, 64 made-up scenes under 110,000 names, in "
    "the page cache); a graph that looks at one byte per patch, so that decoding is the limit; batch 64, one worker. "
    "'savings': 100,000 of 110,000 images known by path, against scoring all; once each, in this order: those known, "
    "all, all with what is known. Columns are compared value by value. 'memory': 1,000 images against a made-up "
    "earlier run of so many other ones. Peak resident set as the kernel counts it (ru_maxrss), file pages that are "
    "mapped included; seconds from the process's start to its end."
)
_OF_A_RUN = ("taken_from",)


def links(count: int) -> Path:
    """Return a list of `count` names of the made-up images, which are links to them."""
    folder = CACHE / "links"
    folder.mkdir(parents=True, exist_ok=True)
    images = made_up_images()
    for row in range(count):
        link = folder / f"{row:06d}.jpg"
        if not link.exists():
            link.hardlink_to(images[row % len(images)])
    path = folder / f"{count}.csv"
    path.write_text("path\n" + "".join(f"{row:06d}.jpg\n" for row in range(count)))
    return path


def score(manifest: Path, out: Path, *options: str | Path) -> dict[str, Any]:
    """Run `score`, and return its time, its memory and what `_SUCCESS` says."""
    shutil.rmtree(out, ignore_errors=True)
    bundle = answering_bundle(untrained_bundle("resnet18"))
    command: list[str | Path] = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest, "--out", out]
    command += ["--bundle", bundle.path, "--devices", "cpu", "--batch-size", "64", *options]
    begun = monotonic()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = monotonic() - begun
    assert status == 0, command
    success = json.loads((out / "_SUCCESS").read_text())
    return {"seconds": round(seconds, 2), "peak_mb": round(usage.ru_maxrss / 1024, 1), "success": success}


def table(out: Path) -> pa.Table:
    """Read a run's parts."""
    return pa.concat_tables(pq.read_table(part) for part in sorted(out.glob("part-*")))


def savings() -> dict[str, Any]:
    """Score 110,000 images of which 100,000 are known, and all of them anew."""
    old, everything = links(KNOWN), links(ALL)
    outs = {name: CACHE / f"known-{name}" for name in ("old", "all", "new")}
    first = score(old, outs["old"])
    plain = score(everything, outs["all"])
    known = score(everything, outs["new"], "--known", outs["old"])
    assert known["success"]["taken_over"]["rows"] == KNOWN
    ours, theirs = table(outs["new"]), table(outs["all"])
    same = ours.drop_columns(list(_OF_A_RUN)).equals(theirs)
    assert ours.column("taken_from").null_count == ALL - KNOWN
    for out in outs.values():
        shutil.rmtree(out)
    return {
        "known": KNOWN,
        "rows": ALL,
        "equal in every column but taken_from": same,
        **{
            name: {key: run[key] for key in ("seconds", "peak_mb")}
            for name, run in (("those known", first), ("all", plain), ("all with --known", known))
        },
        "times as fast": round(plain["seconds"] / known["seconds"], 2),
    }


def made_up_run(like: Path, rows: int, out: Path) -> Path:
    """Write the output of a run over `rows` images that are nowhere, in the form of the run `like`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copy(like / "_run.json", out)
    schema = pq.read_schema(like / "part-000000.parquet")
    dice = np.random.default_rng(0)
    for index, start in enumerate(range(0, rows, PART_ROWS)):
        count = min(PART_ROWS, rows - start)
        stamps = dice.bytes(16 * count)
        columns = {
            "row": np.arange(start, start + count),
            "path": [f"{row:08d}.jpg" for row in range(start, start + count)],
            "score": dice.uniform(0, 5, count).astype(np.float32),
            "score_std": dice.uniform(0, 1, count).astype(np.float32),
            "status": ["ok"] * count,
            "error": pa.nulls(count, pa.string()),
            "width": np.full(count, 512, np.int32),
            "height": np.full(count, 512, np.int32),
            "stamp": [stamps[at : at + 16] for at in range(0, 16 * count, 16)],
        }
        arrays = [pa.array(columns[name], schema.field(name).type) for name in schema.names]
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), out / f"part-{index:06d}.parquet")
    success = json.loads((like / "_SUCCESS").read_text())
    success.update(rows=rows, parts=-(-rows // PART_ROWS), status={"ok": rows})
    (out / "_SUCCESS").write_text(json.dumps(success))
    return out


def memory() -> list[dict[str, Any]]:
    """Score 1,000 images against ever larger earlier runs."""
    few = links(1000)
    like = CACHE / "known-like"
    alone = score(few, like, "--chunk-rows", str(PART_ROWS))
    figures = [{"rows known": 0, "seconds": alone["seconds"], "peak_mb": alone["peak_mb"]}]
    for rows in MANY:
        earlier = made_up_run(like, rows, CACHE / "known-many")
        run = score(few, CACHE / "known-new", "--known", earlier)
        assert run["success"]["taken_over"]["rows"] == 0
        figures.append({"rows known": rows, "seconds": run["seconds"], "peak_mb": run["peak_mb"]})
        print(figures[-1], flush=True)
        shutil.rmtree(earlier)
    return figures


def main(wanted: Sequence[str]) -> None:
    path = RESULTS / "known.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    figures = {name: kept[name] for name in ("savings", "memory") if name in kept}
    for name, measure in (("savings", savings), ("memory", memory)):
        if not wanted or name in wanted:
            figures[name] = measure()
            print(name, json.dumps(figures[name]), flush=True)
    print(record("known", METHOD, figures))


if __name__ == "__main__":
    main(words(__doc__, ("savings", "memory")))
