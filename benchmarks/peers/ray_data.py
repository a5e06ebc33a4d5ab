"""Ray Data: `map_batches` over tuned PyTorch, from paths to Parquet, in a cluster of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch

from pscr_engine.host import usable_cpus

from . import tuned
from .job import Job, main, patches_of


class Score:
    """An actor with a compiled network."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(usable_cpus())
        self._score, self._size = tuned.compiled(job), tuned.batch_size(job)
        P, self._D = job.bundle.info.patch_size, job.bundle.info.sampling.patches
        for _ in range(2):
            self._score(torch.zeros(self._size * self._D, P, P, 3, dtype=torch.uint8))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        patches = torch.from_numpy(np.ascontiguousarray(batch["patches"]).reshape(-1, *batch["patches"].shape[2:]))
        count = len(batch["row"])
        if count < self._size:
            patches = torch.cat([patches, patches.new_zeros((self._size - count) * self._D, *patches.shape[1:])])
        return {"row": batch["row"], "path": batch["path"], "score": self._score(patches)[:count].numpy()}


def prepare(job: Job) -> Callable[[], float]:
    import ray

    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Decoding and the network share the cores, as in the other peers.
    ray.init(num_cpus=2 * usable_cpus(), include_dashboard=False, configure_logging=True, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    few = job.paths[: 2 * tuned.batch_size(job)]
    _run(job, few)  # starts workers, fills the compiler's cache
    start = perf_counter()
    _run(job, few)
    return partial(_timed, job, perf_counter() - start)


def _timed(job: Job, startup: float) -> float:
    _run(job, job.paths)
    return startup


def _run(job: Job, paths: list[str]) -> None:
    import ray

    shutil.rmtree(job.out, ignore_errors=True)

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "patches": patches_of(job, row["path"])}

    dataset = ray.data.from_items([{"row": row, "path": path} for row, path in enumerate(paths)])
    dataset = dataset.map(decode, num_cpus=1).map_batches(
        Score,
        fn_constructor_args=(job,),
        batch_size=tuned.batch_size(job),
        num_cpus=usable_cpus(),
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    dataset.write_parquet(str(job.out))


if __name__ == "__main__":
    main(prepare, "ray", "torch")
