"""Make the engine that runs a plan of the bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...cuda.device import Device
from ...cuda.engine import Engine, Shape
from ...cuda.exemplars import ResidentExemplars
from ...host import cache_folder
from .library import RTX
from .plans import PlanKey, slug

Create = Callable[[Device, ResidentExemplars, Shape], Engine]


def engine_of(key: PlanKey, plan: bytes, batch_size: int | None = None, recorded_by: str = "us") -> Create:
    """Return a function that makes a plan's engine, given the GPU, the exemplars on it, and the tensors' sizes.

    Args:
        key: what the plan was built for.
        plan: the plan's content; its TensorRT must have been loaded.
        batch_size: B; None for the largest that the plan was built for.
        recorded_by: who records CUDA graphs, see `TensorRtEngine`.
    """

    def create(device: Device, exemplars: ResidentExemplars, shape: Shape) -> Engine:
        from .engine import TensorRtEngine

        return TensorRtEngine(
            plan,
            device,
            exemplars,
            shape,
            precision=key.precision,
            batch_size=batch_size or key.batch_size,
            kernels=_kernels_file(key, device) if key.flavour == RTX.name else None,
            recorded_by=recorded_by,
        )

    return create


def _kernels_file(key: PlanKey, device: Device) -> Path:
    """Return the file in the user's cache for kernels compiled for this plan on this kind of GPU."""
    return cache_folder() / f"tensorrt-rtx-{key.tensorrt}-{slug(device.name)}-{key.name}.kernels"
