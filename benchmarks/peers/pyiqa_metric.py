"""pyiqa's API on HyperIQA, a metric of ResNet-50 class, with random weights, so that nothing is downloaded.

It takes 25 crops of 224 pixels per image where PSCR takes nine.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import timm
import torch

from pscr_engine.host import usable_cpus

from .job import Job, main


def prepare(job: Job) -> Callable[[], None]:
    import pyiqa

    torch.set_num_threads(usable_cpus())
    torch.manual_seed(0)
    build = timm.create_model

    def without_weights(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        return build(name, pretrained=False, **options)

    with mock.patch("timm.create_model", without_weights), contextlib.redirect_stdout(sys.stderr):
        metric = pyiqa.create_metric("hyperiqa", device=torch.device("cpu"), pretrained=False)
    metric(job.paths[0])
    return partial(_work, job, metric)


def _work(job: Job, metric: torch.nn.Module) -> None:
    job.write([float(metric(path)) for path in job.paths])


if __name__ == "__main__":
    main(prepare, "pyiqa", "torch", "timm")
