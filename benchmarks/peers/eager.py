"""The reference's algorithm in PyTorch eager: for each image every exemplar is encoded again, and the image, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pscr_export.checkpoint import read_checkpoint
from pscr_export.network import MEAN, STD
from torch import Tensor

from pscr_engine.host import usable_cpus

from ..common import exemplar_images
from .job import Job, main, patches_of


def prepare(job: Job) -> Callable[[], None]:
    torch.set_num_threads(usable_cpus())
    checkpoint = read_checkpoint(job.checkpoint, "auto")
    exemplars = exemplar_images()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def features(path: str) -> Tensor:
        patches = torch.from_numpy(patches_of(job, path)).permute(0, 3, 1, 2).float() / 255
        mean_features: Tensor = checkpoint.trunk((patches - mean) / std).mean(dim=0)
        return mean_features

    def score(path: str) -> float:
        predictions = []
        for exemplar, label in exemplars:
            pair = torch.cat([features(path), features(exemplar)])
            hidden = torch.relu(torch.nn.functional.linear(pair, checkpoint.fc1_weight, checkpoint.fc1_bias))
            delta = torch.nn.functional.linear(hidden, checkpoint.fc2_weight, checkpoint.fc2_bias)
            predictions.append(label + float(delta))
        return sum(predictions) / len(predictions)

    with torch.inference_mode():
        features(job.paths[0])
    return partial(_work, job, score)


def _work(job: Job, score: Callable[[str], float]) -> None:
    with torch.inference_mode():
        job.write([score(path) for path in job.paths])


if __name__ == "__main__":
    main(prepare, "torch", "torchvision")
