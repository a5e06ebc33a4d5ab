"""Compare the project's own kernels with NumPy, and their speed with that of a copy."""

from __future__ import annotations

import numpy as np

from pscr_engine.cuda.device import Device, DeviceBuffer
from pscr_engine.cuda.open import open_device
from pscr_engine.cuda.sampler import DeviceImage, DeviceSampler, Tables
from pscr_engine.cuda.score_std import ScoreStd, scratch_bytes
from pscr_engine.sampling import Sampling

from .clock import rate
from .place import Place
from .result import Result

_P = 224
_SIZES = ((512, 512), (224, 224), (1024, 768), (225, 600), (300, 301), (100, 500), (223, 224), (64, 64))
_BATCH = 64


def run(place: Place, result: Result) -> None:
    """Check every byte of the patches, and `score_std`, against NumPy's; measure bytes per second."""
    device = open_device(place.device)
    with device.current():
        for name in ("ops", "nops", "rps"):
            differing, total = _patches(device, Sampling.create(name, _P))
            result.check(f"kernel {name}: bit for bit", differing == 0, f"{differing} of {total} bytes differ")
        off = _spread(device)
        result.check("score_std", off < 1e-5, f"largest relative difference {off:.1e}")
        copy = _copy_rate(device, place.seconds)
        sampled = _sample_rate(device, place.seconds)
    D = 9
    moved = 2 * D * _P * _P * 3 / 1e9
    result.figures["patch kernel"] = {
        "images/s": round(sampled),
        "GB/s read and written": round(sampled * moved, 1),
        "share of a copy on the device": round(sampled * moved / copy, 3),
    }
    result.figures["copy on the device, GB/s read and written"] = round(copy, 1)


def _upload(device: Device, data: np.ndarray) -> DeviceBuffer:
    flat = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    buffer, staging, stream = device.allocate(flat.nbytes), device.pinned(flat.nbytes), device.stream()
    staging.array[: flat.nbytes] = flat
    device.copy_to_device(buffer.address, staging, flat.nbytes, stream)
    stream.synchronize()
    staging.free()
    return buffer


def _download(device: Device, address: int, nbytes: int) -> np.ndarray:
    staging, stream = device.pinned(nbytes), device.stream()
    device.copy_to_host(staging, address, nbytes, stream)
    stream.synchronize()
    out = staging.array[:nbytes].copy()
    staging.free()
    return out


def _patches(device: Device, sampling: Sampling) -> tuple[int, int]:
    dice = np.random.default_rng(0)
    images, buffers, expected = [], [], []
    for index, (height, width) in enumerate(_SIZES):
        pixels, digest = dice.integers(0, 256, (height, width, 3), np.uint8), bytes([index] * 16)
        buffers.append(_upload(device, pixels))
        images.append(DeviceImage(buffers[-1].address, 3 * width, height, width, digest))
        expected.append(np.empty((sampling.patches, _P, _P, 3), np.uint8))
        sampling.sample(pixels, expected[-1], digest=digest)
    wanted = np.concatenate(expected).reshape(-1)
    sampler, out, stream = DeviceSampler(device, sampling, len(images)), device.allocate(wanted.nbytes), device.stream()
    sampler.launch(Tables.build(images, sampling), out.address, stream)
    stream.synchronize()
    seen = _download(device, out.address, wanted.nbytes)
    for buffer in (*buffers, out):
        buffer.free()
    sampler.free()
    return int((seen != wanted).sum()), wanted.nbytes


def _spread(device: Device) -> float:
    dice, worst = np.random.default_rng(0), 0.0
    for images, exemplars in ((1, 1), (3, 10), (64, 1000), (130, 129)):
        scores = dice.normal(3, 1, (images, exemplars)).astype(np.float32)
        means = scores.mean(axis=1, dtype=np.float32)
        buffers = [_upload(device, scores), _upload(device, means)]
        buffers += [device.allocate(scratch_bytes(images)), device.allocate(4 * images)]
        stream = device.stream()
        ScoreStd(device).launch(
            *(buffer.address for buffer in buffers), images=images, exemplars=exemplars, stream=stream
        )
        stream.synchronize()
        seen = _download(device, buffers[-1].address, 4 * images).view(np.float32)
        wanted = scores.std(axis=1, dtype=np.float64)
        worst = max(worst, float(np.max(np.abs(seen - wanted) / np.maximum(wanted, 1e-3))))
        for buffer in buffers:
            buffer.free()
    return worst


def _copy_rate(device: Device, seconds: float) -> float:
    """Measure a copy on the device: gigabytes read and written per second."""
    nbytes = 256 * 2**20
    source, target, stream = device.allocate(nbytes), device.allocate(nbytes), device.stream()
    copied = rate(
        lambda: device.copy_on_device(target.address, source.address, nbytes, stream), stream.synchronize, 1, seconds
    )
    source.free()
    target.free()
    return copied * 2 * nbytes / 1e9


def _sample_rate(device: Device, seconds: float) -> float:
    """Measure images of 512×512 per second, from the launch alone: tables are copied each time."""
    sampling = Sampling.create("ops", _P)
    pixels = device.allocate(_BATCH * 512 * 512 * 3)
    images = [DeviceImage(pixels.address + index * 512 * 512 * 3, 512 * 3, 512, 512) for index in range(_BATCH)]
    tables = Tables.build(images, sampling)
    sampler, out, stream = (
        DeviceSampler(device, sampling, _BATCH),
        device.allocate(_BATCH * 9 * _P * _P * 3),
        device.stream(),
    )
    images_per_second = rate(
        lambda: sampler.launch(tables, out.address, stream), stream.synchronize, _BATCH, seconds
    )  # the tables are the same each time, so a copy may overtake an earlier launch
    for buffer in (pixels, out, sampler):
        buffer.free()
    return images_per_second
