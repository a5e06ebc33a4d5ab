"""Measure what the card can do at most: copies and matrix products."""

from __future__ import annotations

from pscr_engine.cuda.open import open_device

from .clock import rate
from .place import Place
from .result import Result

_BYTES = 256 * 2**20
_SIDE = 8192


def run(place: Place, result: Result) -> None:
    """Measure GB/s to and from the card, from pinned memory, and TFLOP/s of FP16 matrix products."""
    device = open_device(place.device)
    with device.current():
        buffer, pinned, stream = device.allocate(_BYTES), device.pinned(_BYTES), device.stream()
        to = rate(
            lambda: device.copy_to_device(buffer.address, pinned, _BYTES, stream), stream.synchronize, 1, place.seconds
        )
        back = rate(
            lambda: device.copy_to_host(pinned, buffer.address, _BYTES, stream), stream.synchronize, 1, place.seconds
        )
        buffer.free()
        pinned.free()
    result.figures["host to device, GB/s"] = round(to * _BYTES / 1e9, 1)
    result.figures["device to host, GB/s"] = round(back * _BYTES / 1e9, 1)
    try:
        import torch
    except ImportError:
        result.skipped["matrix product"] = "PyTorch is not installed"
        return
    if not torch.cuda.is_available():
        result.skipped["matrix product"] = "PyTorch can't use the GPU"
        return
    a = torch.randn(_SIDE, _SIDE, dtype=torch.float16, device=place.name)
    products = rate(lambda: a @ a, lambda: torch.cuda.synchronize(place.device), 1, place.seconds)
    result.figures["FP16 matrix product, TFLOP/s"] = round(products * 2 * _SIDE**3 / 1e12, 1)
