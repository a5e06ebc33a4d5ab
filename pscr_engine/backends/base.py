"""The interface of a backend, whatever device it computes on."""

from __future__ import annotations

from typing import Protocol

from ..stages.base import StageChain, StageSettings


class Backend(Protocol):
    """Runs the scoring graph of one bundle, with its exemplar cache, on one device.

    Attributes:
        name: as in `--backend`.
        device: as in `--devices`.
        precision: which of the bundle's graphs runs.
        batch_size: how many images a batch should have for good throughput.
    """

    name: str
    device: str
    precision: str
    batch_size: int

    def stages(self, settings: StageSettings) -> StageChain:
        """Open the stages from encoded images to scores, with their buffers; the caller closes them.

        Raises:
            DeviceMemoryError: the device has too little memory for the buffers.
            BackendError: the backend can't run.
        """
        ...

    def close(self) -> None:
        """Give the device's memory back, after the stages have been closed."""
        ...
