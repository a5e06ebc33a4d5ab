"""PyTorch as well as one can: cached exemplars, channels last, torch.compile with frozen weights, DataLoader.

Options: bf16, for autocast to bfloat16; batch=B.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from pscr_export.checkpoint import read_checkpoint
from pscr_export.network import ScoringNetwork
from pscr_export.precision import prepare_trunk
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pscr_engine.host import usable_cpus

from .job import Job, main, patches_of

# Larger batches are no faster on two cores, and take longer to fill.
BATCH = 4


class Patches(Dataset[np.ndarray]):
    """The patches of each image, decoded and sampled when they are asked for."""

    def __init__(self, job: Job) -> None:
        self._job, self._paths = job, job.paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return patches_of(self._job, self._paths[index])


def compiled(job: Job) -> Callable[[Tensor], Tensor]:
    """Compile the network, from uint8 [B·D, P, P, 3] to scores [B]; always of the same B."""
    import torch._inductor.config

    torch._inductor.config.freezing = True  # weights packed for the processor's kernels, batch norms folded
    checkpoint = read_checkpoint(job.checkpoint, "auto")
    trunk = prepare_trunk(checkpoint.trunk, "fp32").to(memory_format=torch.channels_last)
    D, M = job.bundle.info.sampling.patches, job.bundle.exemplars.count
    network = torch.compile(ScoringNetwork(trunk, checkpoint, D, exemplars=M).eval(), dynamic=False)
    hidden, labels = (torch.from_numpy(a) for a in (job.bundle.exemplars.hidden, job.bundle.exemplars.labels))
    precision = torch.autocast("cpu", torch.bfloat16, enabled="bf16" in job.options)

    def score(patches: Tensor) -> Tensor:
        with torch.inference_mode(), precision:
            scores: Tensor = network(patches, hidden, labels)[0].float()
            return scores

    return score


def batch_size(job: Job) -> int:
    given = [int(option.removeprefix("batch=")) for option in job.options if option.startswith("batch=")]
    return given[0] if given else BATCH


def prepare(job: Job) -> Callable[[], None]:
    torch.set_num_threads(usable_cpus())
    score, size = compiled(job), batch_size(job)
    P = job.bundle.info.patch_size
    for _ in range(2):
        score(torch.zeros(size * job.bundle.info.sampling.patches, P, P, 3, dtype=torch.uint8))
    loader = DataLoader(Patches(job), size, num_workers=1, prefetch_factor=4, collate_fn=_together)
    return partial(_work, job, loader, score, size)


def _together(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(images))


def _work(job: Job, loader: Any, score: Callable[[Tensor], Tensor], size: int) -> None:
    scores: list[float] = []
    D = job.bundle.info.sampling.patches
    for patches in loader:
        count = len(patches) // D
        if count < size:  # the compiled graph has one shape
            patches = torch.cat([patches, patches.new_zeros((size - count) * D, *patches.shape[1:])])
        scores += score(patches)[:count].tolist()
    job.write(scores)


if __name__ == "__main__":
    main(prepare, "torch", "torchvision")
