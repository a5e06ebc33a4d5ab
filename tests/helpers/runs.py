"""Runs: lists for them, what is in their output folders, and made-up folders, without scoring."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pscr_engine.manifests import ManifestOptions, open_manifest
from pscr_engine.output.parts import Parts
from pscr_engine.stages.sink import output_schema


def write_manifest(path: Path, names: Iterable[str], **columns: Iterable[Any]) -> Path:
    """Write a CSV list of images, with more columns if any are given, and return its path."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *columns])
        writer.writerows(zip(names, *columns.values(), strict=True))
    return path


def parts(out: Path) -> list[Path]:
    """Return the parts in an output folder, in order."""
    return sorted(out.glob("part-*.parquet"))


def rows(out: Path) -> list[dict[str, Any]]:
    """Return all rows in an output folder, in order."""
    return pa.concat_tables(pq.read_table(part) for part in parts(out)).to_pylist()


def make_run(
    folder: Path,
    manifest: str | Path,
    scores: Sequence[float | None],
    *,
    stds: Sequence[float] | None = None,
    errors: dict[int, tuple[str, str]] | None = None,
    chunk_rows: int = 4,
    complete: bool = True,
    bundle: str = "b" * 64,
    **columns: str | None,
) -> Path:
    """Write a run's output folder, with one row per row of the manifest, and return it.

    Args:
        folder: to make.
        manifest: whatever `--manifest` takes.
        scores: one per row, None for a row that has failed.
        stds: `score_std` of each row; 0.5 by default.
        errors: row → status and reason of rows without a score; "missing" by default.
        chunk_rows: rows per part.
        complete: whether `_SUCCESS` is written.
        bundle: digest of the bundle.
        columns: `path_column`, `id_column` and `root`, as the manifest's options.
    """
    opened = open_manifest(manifest, ManifestOptions(**columns))
    queries = list(opened.rows())
    assert len(queries) == len(scores)
    errors = errors or {}
    schema = output_schema(opened.id_type, None)
    folder.mkdir()
    statuses = []
    for start in range(0, len(queries), chunk_rows):
        rows = []
        for query in queries[start : start + chunk_rows]:
            score = scores[query.row]
            status, error = ("ok", None) if score is not None else errors.get(query.row, ("missing", "no such file"))
            std = None if score is None else 0.5 if stds is None else stds[query.row]
            size = None if score is None else 64
            rows.append(
                {"row": query.row, "id": query.id, "path": query.path, "score": score, "score_std": std}
                | {"status": status, "error": error, "width": size, "height": size}
            )
            statuses.append(status)
        Parts(folder).write(start // chunk_rows, pa.Table.from_pylist(rows, schema))
    run = {
        "pscr_engine": "0.1.0",
        "started": "2026-01-01T12:00:00+00:00",
        "identity": {
            "bundle": bundle,
            "manifest": opened.fingerprint,
            "image_folder": opened.folder,
            "precision": "fp32",
            "root": columns.get("root"),
            "chunk_rows": chunk_rows,
            "max_pixels": 10**7,
        },
        "settings": {
            "manifest": str(manifest),
            "bundle": "model.pscr",
            "out": str(folder),
            "columns": {"path_column": None, "id_column": None, "root": None, **columns},
        },
        "bundle": {
            "backbone": "resnet18",
            "sampling": {"name": "ops", "patch_size": 224},
            "exemplars": 10,
            "precision": "fp32",
            "parity": {
                "images": 10,
                "max_abs_diff": 4.8e-7,
                "mean_abs_diff": 1e-7,
                "srcc": 1.0,
                "tolerance": 4e-4,
                "min_srcc": None,
                "passed": True,
                "accepted": False,
            },
        },
        "host": {"name": "here", "machine": "x86_64", "cpus": 2, "pid": 1},
    }
    (folder / "_run.json").write_text(json.dumps(run))
    if complete:
        stages = {
            name: {"items": len(queries), "seconds": seconds}
            for name, seconds in zip(
                ("source", "fetch", "decode", "sample", "infer", "sink"), (0.1, 0.2, 2, 0.5, 7, 0.1), strict=True
            )
        }
        success = {
            "rows": len(queries),
            "parts": -(-len(queries) // chunk_rows),
            "status": dict(Counter(statuses)),
            "scored_by_last_run": len(queries),
            "startup_seconds": 0.2,
            "seconds": 5.0,
            "images_per_second": len(queries) / 5,
            "devices": ["cpu"],
            "stages": stages,
            "finished": "2026-01-01T12:01:00+00:00",
        }
        (folder / "_SUCCESS").write_text(json.dumps(success))
    return folder
