"""Checks of the device layer, each run by test_device.py in a process of its own, on the pretend driver.

python -m tests.cuda.on_pretend_driver CHECK FOLDER [PYCUDA]   (without it, cuda.bindings is used)
"""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pscr_engine.cuda.device import DeviceMemoryError
from pscr_engine.cuda.open import open_device
from pscr_engine.errors import BackendError
from pscr_engine.sampling import Sampling

from . import pretend_driver


def patches(driver: ctypes.CDLL, folder: Path) -> None:
    """Copy images of several sizes to the device, launch once, and compare the patches with the host's."""
    from pscr_engine.cuda.sampler import DeviceImage, DeviceSampler, Tables

    device = open_device(0)
    assert (device.name, device.compute_capability, device.driver) == ("pretended GPU", (9, 0), 13000)
    sampling = Sampling.create("ops", 32)
    dice = np.random.default_rng(0)
    with device.current():
        stream, done = device.stream(), device.event()
        assert stream.handle > 0
        sampler = DeviceSampler(device, sampling, 4)
        out = device.allocate(4 * 9 * 32 * 32 * 3)
        back = device.pinned(out.nbytes)
        assert out.address % 256 == 0
        for sizes in ([(40, 50), (64, 64), (20, 90), (32, 32)], [(10, 10)]):
            images, buffers, expected = [], [], []
            for height, width in sizes:
                pixels = dice.integers(0, 256, (height, width, 3), np.uint8)
                staged, buffer = device.pinned(pixels.nbytes), device.allocate(pixels.nbytes)
                staged.array[:] = pixels.reshape(-1)
                device.copy_to_device(buffer.address, staged, pixels.nbytes, stream)
                stream.synchronize()
                staged.free()
                buffers.append(buffer)
                images.append(DeviceImage(buffer.address, 3 * width, height, width))
                expected.append(np.empty((9, 32, 32, 3), np.uint8))
                sampling.sample(pixels, expected[-1])
            sampler.launch(Tables.build(images, sampling), out.address, stream)
            nbytes = len(images) * 9 * 32 * 32 * 3
            device.copy_to_host(back, out.address, nbytes, stream)
            done.record(stream)
            done.synchronize()
            np.testing.assert_array_equal(back.array[:nbytes], np.concatenate(expected).reshape(-1))
            for buffer in buffers:
                buffer.free()
        with pytest.raises(ValueError, match=r"only \d+ fit"):
            wide = DeviceImage(out.address, 3 * 4000, 1, 4000)
            sampler.launch(Tables.build([wide] * 4, sampling), out.address, stream)
        assert driver.pretend_launches() == 2
        sampler.free()
        out.free()
        back.free()
    assert driver.pretend_allocations() == 0, "buffers were left behind"


def threads(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that a device is current only in the thread that says so, and only for as long."""
    device, seen = open_device(0), []

    def work() -> None:
        with device.current():
            seen.append(device.memory())

    with pytest.raises(Exception, match="cuMemAlloc failed"):
        device.allocate(16)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(1 << 33, 1 << 33)]
    with device.current():
        device.allocate(16).free()
    with pytest.raises(Exception, match="cuMemAlloc failed"):
        device.allocate(16)


def refusals(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that each refusal is one line that says what to do."""
    driver.pretend_limit(ctypes.c_long(1000))
    device = open_device(0)
    with device.current(), pytest.raises(DeviceMemoryError, match=r"pretended GPU: .* use a smaller batch_size"):
        device.allocate(5000)
    with pytest.raises(BackendError, match=r"cuda:3: no such GPU here \(there is cuda:0\)"):
        open_device(3)
    driver.pretend_version(12040)
    with pytest.raises(BackendError, match=r"driver is too old: it supports CUDA 12\.4.*release 580"):
        open_device(0)
    driver.pretend_version(13000)
    driver.pretend_devices(0)
    with pytest.raises(BackendError, match=r"cuda:0: no such GPU here \(there is none\)"):
        open_device(0)
    driver.pretend_devices(-1)
    with pytest.raises(BackendError, match=r"no usable NVIDIA driver \(.*nvidia-smi works"):
        open_device(0)


if __name__ == "__main__":
    check, folder = sys.argv[1], Path(sys.argv[2])
    pycuda = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    if pycuda is not None:
        sys.path.append(str(pycuda))
    if check == "no_driver":
        with pytest.raises(BackendError, match=r"no usable NVIDIA driver \(.*device cpu"):
            open_device(0)
    else:
        globals()[check](pretend_driver.install(pycuda, folder), folder)
    print("passed", check)
