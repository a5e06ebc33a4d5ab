"""What every peer has in common: the job it is given, and its answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pscr_engine.bundle import Bundle
from pscr_engine.host import keep_freed_memory, usable_cpus


@dataclass(frozen=True)
class Job:
    """Score `rows` images, the files of a folder again and again, into one Parquet file.

    Args:
        bundle: for its sampling and exemplar cache, and as the ONNX graph.
        checkpoint: the same network for PyTorch.
        images: the image files.
        rows: how many to score.
        out: the Parquet file.
        options: the peer's own options.
    """

    bundle: Bundle
    checkpoint: Path
    images: Sequence[Path]
    rows: int
    out: Path
    options: Sequence[str]

    @property
    def paths(self) -> list[str]:
        return [str(path) for path in islice(cycle(self.images), self.rows)]

    def write(self, scores: Sequence[float]) -> None:
        assert np.isfinite(scores).all(), "an image has no score"
        table = pa.table({"row": np.arange(self.rows), "path": self.paths, "score": np.array(scores, np.float32)})
        pq.write_table(table, self.out, compression="zstd")


def patches_of(job: Job, path: str) -> np.ndarray:
    """Decode an image with Pillow and sample it as the bundle says, uint8 [D, P, P, 3]."""
    sampling = job.bundle.info.sampling
    out = np.empty((sampling.patches, sampling.patch_size, sampling.patch_size, 3), np.uint8)
    with Image.open(path) as image:
        sampling.sample(np.asarray(image.convert("RGB")), out)
    return out


def main(prepare: Callable[[Job], Callable[[], float | None]], *packages: str) -> None:
    """Run a peer: `prepare` loads and warms up and returns what is timed, up to the written file.

    What is timed may return seconds that are taken off the time.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    keep_freed_memory()  # as pscr-engine does itself
    images = sorted(given.images.glob("*.jpg"))
    job = Job(Bundle.open(given.bundle), given.checkpoint, images, given.rows, given.out, given.options)
    work = prepare(job)
    start = perf_counter()
    taken_off = work() or 0.0
    answer = {
        "seconds": perf_counter() - start - taken_off,
        "cores": usable_cpus(),
        "versions": {name: version(name) for name in packages},
    }
    print(json.dumps(answer))
    sys.stdout.flush()
