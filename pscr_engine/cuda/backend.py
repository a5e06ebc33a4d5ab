"""The backend for GPUs: a bundle's exemplar cache and engine on one device."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..bundle import Bundle
from ..errors import BackendError, MissingDependencyError
from ..stages.base import StageSettings
from .batch_size import find_batch_size
from .decoder import ImageDecoder
from .device import Device
from .device_lost import raise_if_device_lost
from .driver import keep_freed_memory
from .engine import Engine, Shape
from .exemplars import ResidentExemplars
from .stages import DeviceStages

log = logging.getLogger("pscr_engine")

EngineFactory = Callable[[Device, ResidentExemplars, Shape], Engine]


class CudaBackend:
    """A backend on a GPU, where the exemplar cache and the engine stay.

    Attributes:
        gpu, engine, shape: the device, what scores patches on it, and the sizes of the engine's tensors.
        decoder: decodes images on the device; None if all images are decoded on the processor.

    Args:
        bundle: an opened bundle.
        device: the GPU.
        create: makes the engine, given the device, the exemplars on it, and the shape.
        threads: processor threads that it may use; 0 for all.

    Raises:
        DeviceMemoryError: the device has too little memory.
        DeviceLostError: the GPU has dropped out.
        BackendError, MissingDependencyError: the engine can't run here.
    """

    def __init__(self, bundle: Bundle, device: Device, create: EngineFactory, *, threads: int = 0) -> None:
        self.gpu = device
        self.shape = Shape.of(bundle.info, bundle.exemplars.count)
        with raise_if_device_lost(device), device.current():
            self.decoder = _decoder(device, threads)
            self._exemplars = ResidentExemplars.upload(device, bundle.exemplars)
            self.engine = create(device, self._exemplars, self.shape)
        self.name, self.precision = self.engine.name, self.engine.precision
        self.device, self.batch_size = f"cuda:{device.index}", self.engine.batch_size
        log.info(
            "%s: %s, %s, %s, batches of %d, JPEGs decoded on the %s",
            self.device,
            device.name,
            self.name,
            self.precision,
            self.batch_size,
            "processor" if self.decoder is None else "GPU",
        )

    def tune(self, bundle_digest: str) -> None:
        """Find the batch size with the best throughput, which takes some seconds the first time on a host.

        Raises:
            BackendError: not even a small batch can be run.
        """
        identity = {"engine": self.name, "version": self.engine.version, "precision": self.precision}
        with raise_if_device_lost(self.gpu), self.gpu.current():
            self.batch_size = find_batch_size(self.engine, self.gpu, self.shape, {**identity, "bundle": bundle_digest})

    def stages(self, settings: StageSettings) -> DeviceStages:
        """Open the stages on the GPU, with their slots, as `Backend.stages` describes."""
        return DeviceStages(self.gpu, self.engine, self.shape, self.decoder, settings)

    def close(self) -> None:
        """Give the device's memory back, after the stages have been closed."""
        with self.gpu.current():
            self.engine.close()
            self._exemplars.free()


def _decoder(device: Device, threads: int) -> ImageDecoder | None:
    """Open the decoder on `device`, which must be current, since nvImageCodec makes its streams on the current one."""
    try:
        decoder = ImageDecoder(device.index, threads)
        decoder.probe()
    except (MissingDependencyError, BackendError) as error:
        log.warning("%s; JPEGs are decoded on the processor instead", error)
        return None
    keep_freed_memory(device.index)
    return decoder
