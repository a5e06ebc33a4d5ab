"""What every inference backend offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..records import Pixels

if TYPE_CHECKING:
    from ..stages.path import Path, PathSettings


@dataclass(frozen=True, slots=True)
class BatchScores:
    """A backend's answer for B images.

    Args:
        score: float32 [B].
        exemplar_scores: float32 [B, M], label + delta.
        features: float32 [B, C] if they were asked for.
    """

    score: NDArray[np.float32]
    exemplar_scores: NDArray[np.float32]
    features: NDArray[np.float32] | None


class Backend(Protocol):
    """Runs the scoring graph of one bundle, with its exemplar cache, on patches in the host's memory.

    Attributes:
        name: as in `--backend`.
        device: as in `--devices`.
        precision: which of the bundle's graphs runs.
        batch_size: how many images a batch should have for good throughput.
        runs: how many threads should call `score` at once for good throughput.
    """

    name: str
    device: str
    precision: str
    batch_size: int
    runs: int

    def score(self, patches: Pixels, *, features: bool = False) -> BatchScores:
        """Score the images whose patches, uint8 [B·D, P, P, 3], are given; D patches after another per image."""
        ...


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
