"""Profile which kernels the engine's time goes to, by PyTorch's profiler."""

from __future__ import annotations

from contextlib import closing
from importlib.util import find_spec

from pscr_engine.backends.registry import create_backend
from pscr_engine.cuda.backend import CudaBackend
from pscr_engine.cuda.slot import Slot, Wanted

from .place import Place
from .result import Result, SkippedError

_KERNELS = 20


def run(place: Place, result: Result) -> None:
    """Profile ten batches; record the twenty kernels with the most time, in microseconds per batch."""
    if find_spec("torch") is None:
        raise SkippedError("torch is not installed")
    import torch
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        raise SkippedError("PyTorch can't use the GPU")
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        backend = create_backend(bundle, device=place.name)
        assert isinstance(backend, CudaBackend)
        with closing(backend), backend.gpu.current():
            engine = backend.engine
            slot = Slot(backend.gpu, None, engine.batch_size, backend.shape, Wanted())
            for _ in range(3):
                engine.enqueue(slot.engine_tensors)
            engine.streams[0].synchronize()
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                for _ in range(10):
                    engine.enqueue(slot.engine_tensors)
                engine.streams[0].synchronize()
            slot.free()
            kernels = sorted(seen.key_averages(), key=lambda kernel: -kernel.self_device_time_total)[:_KERNELS]
            result.figures[f"{backbone} {backend.name} {backend.precision}, B = {engine.batch_size}: us a batch"] = {
                kernel.key[:100]: round(kernel.self_device_time_total / 10, 1) for kernel in kernels
            }
