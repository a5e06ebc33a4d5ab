"""What every inference backend offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ..stages.base import Path, PathSettings


@runtime_checkable
class DeviceBackend(Protocol):
    """Runs the scoring graph of one bundle, with its exemplar cache, on a GPU, where the patches are made, too.

    Attributes: as for `Backend`.
    """

    name: str
    device: str
    precision: str
    batch_size: int

    def path(self, settings: PathSettings) -> Path:
        """All the stages from encoded images to scores, with their buffers."""
        ...

    def close(self) -> None:
        """Give the device's memory back. No path is open any more."""
        ...
