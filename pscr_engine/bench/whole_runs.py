"""Whole runs, from files to Parquet, on one device and on several."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..config import ScoreConfig
from ..output.run_directory import SUCCESS_FILE
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
        config: of the runs; manifest and output folder are this class's own.
        paths: the images; a manifest names them again and again.
        folder: for manifests and scores.
        seconds: a run takes about five times as long.
        rounds: runs per arrangement; the median counts.
    """

    config: ScoreConfig
    paths: Sequence[str]
    folder: Path
    seconds: float
    rounds: int

    def scaling(self, devices: Sequence[str], told: Callable[[str], None] = lambda what: None) -> list[dict[str, Any]]:
        """Runs on the first of the devices, on the first two, and so on, with their efficiency.

        Args:
            devices: as `resolve_devices` gives them.
            told: is told what is being measured.
        """
        out: list[dict[str, Any]] = []
        for count in range(1, len(devices) + 1):
            told(f"whole run on {', '.join(devices[:count])}")
            found = self.on(devices[:count])
            first = out[0] if out else found
            rate, one = found["images_per_second"]["median"], first["images_per_second"]["median"]
            out.append({**found, "scaling_efficiency": round(rate / (count * one), 4)})
        return out

    def on(self, devices: Sequence[str]) -> dict[str, Any]:
        """Images per second on these devices, start-up not counted, and where the time went in the last run."""
        rows = _FIRST_ROWS * len(devices)
        guess = self._run(devices, rows)[0]["images_per_second"]
        rows = max(rows, math.ceil(guess * self.seconds * _LONGER))
        found = [self._run(devices, rows) for _ in range(self.rounds)]
        last, joules = found[-1]
        return {
            "devices": list(devices),
            "rows": rows,
            "images_per_second": Rate.of([success["images_per_second"] for success, _ in found]).as_json(),
            "startup_seconds": last["startup_seconds"],
            "status": last["status"],
            "stages": last["stages"],
            "joules_per_image": None if joules is None else round(joules / rows, 4),
        }

    def _run(self, devices: Sequence[str], rows: int) -> tuple[dict[str, Any], float | None]:
        manifest, out = self.folder / "manifest.parquet", self.folder / "scores"
        pq.write_table(pa.table({"path": list(islice(cycle(self.paths), rows))}), manifest)
        shutil.rmtree(out, ignore_errors=True)
        config = replace(self.config, manifest=str(manifest), out=out, devices=",".join(devices))
        log = logging.getLogger("pscr_engine")
        level = log.level
        log.setLevel(logging.WARNING)  # a line per run would drown what is measured
        metered = meter(devices)
        try:
            run(config)
        finally:
            log.setLevel(level)
        joules = None if metered is None else metered[0]()
        return json.loads((out / SUCCESS_FILE).read_text(encoding="utf-8")), joules
