"""Measure whole runs, from files to Parquet, on one device and on several."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import ScoreConfig
from ..errors import PscrError
from ..output.parts import Parts
from ..output.run_identity import SUCCESS_FILE
from ..progress import Progress, silent
from ..records import Status
from ..runners.local import run
from .energy import meter
from .rate import Rate

_FIRST_ROWS = 64
# A run has a beginning and an end, when not all stages are at work: they must not count for much.
_LONGER = 5


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """Runs over the same images, as `pscr-engine score` makes them.

    Args:
        config: the runs' settings; its manifest and output folder are replaced.
        paths: the images, absolute; a manifest names them again and again.
        folder: for manifests and scores.
        seconds: a run takes about five times as long.
        rounds: runs on the same devices; the median counts.
    """

    config: ScoreConfig
    paths: Sequence[str]
    folder: Path
    seconds: float
    rounds: int

    def scaling(self, devices: Sequence[str], progress: Progress = silent) -> list[dict[str, Any]]:
        """Measure runs on the first device, on the first two, and so on, with the efficiency of using more.

        Args:
            devices: as `resolve_devices` gives them.
            progress: is called with what is being measured.

        Raises:
            PscrError: an image can't be scored.
        """
        out: list[dict[str, Any]] = []
        for count in range(1, len(devices) + 1):
            progress(f"whole run on {', '.join(devices[:count])}", 0, None)
            measured = self.on(devices[:count])
            first = out[0] if out else measured
            rate, one = measured["images_per_second"]["median"], first["images_per_second"]["median"]
            out.append({**measured, "scaling_efficiency": round(rate / (count * one), 4)})
        return out

    def on(self, devices: Sequence[str]) -> dict[str, Any]:
        """Measure images per second on these devices, without start-up, and each stage's time in the last run."""
        rows = _FIRST_ROWS * len(devices)
        guess = self._run(devices, rows)[0]["images_per_second"]
        rows = max(rows, math.ceil(guess * self.seconds * _LONGER))
        runs = [self._run(devices, rows) for _ in range(self.rounds)]
        last, joules = runs[-1]
        return {
            "devices": list(devices),
            "rows": rows,
            "images_per_second": Rate.of([success["images_per_second"] for success, _ in runs]).as_json(),
            "startup_seconds": last["startup_seconds"],
            "status": last["status"],
            "stages": last["stages"],
            "joules_per_image": None if joules is None else round(joules / rows, 4),
        }

    def _run(self, devices: Sequence[str], rows: int) -> tuple[dict[str, Any], float | None]:
        manifest, out = self.folder / "manifest.parquet", self.folder / "scores"
        names = pa.array(map(os.fsencode, islice(cycle(self.paths), rows)), pa.binary())
        pq.write_table(pa.table({"path": names.cast(pa.string(), safe=False)}), manifest)  # names need not be UTF-8
        shutil.rmtree(out, ignore_errors=True)
        config = replace(self.config, manifest=str(manifest), out=out, devices=",".join(devices))
        log = logging.getLogger("pscr_engine")
        level = log.level
        log.setLevel(logging.WARNING)  # a log line per run would hide the messages about what is measured
        metered = meter(devices)
        try:
            run(config)
        finally:
            log.setLevel(level)
        joules = None if metered is None else metered[0]()
        success = json.loads((out / SUCCESS_FILE).read_text(encoding="utf-8"))
        if success["status"] != {Status.OK.value: rows}:
            raise PscrError(_failed(out, success["status"], rows))
        return success, joules


def _failed(out: Path, status: dict[str, int], rows: int) -> str:
    """Say how many rows of a run are not ok, and why the first of them is not."""
    counts = ", ".join(f"{count:,} {name}" for name, count in status.items() if name != Status.OK.value)
    parts, first = Parts(out), ""
    for index in parts.indices():
        for line in parts.read(index, ["path", "status", "error"]).to_pylist():
            if not first and line["status"] != Status.OK.value:
                first = f"; the first: {line['path']}: {line['error']}"
    return f"{counts} of the {rows:,} rows of a whole run, whose speed is therefore no figure{first}"
