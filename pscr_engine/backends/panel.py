"""Several backends on the processor as one: a run's models score each image in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from ..bundle import Bundle
from ..errors import UsageError, option
from ..stages.base import StageSettings
from ..stages.infer import PatchScorer
from ..stages.panel import Member, PanelStages
from .base import Backend
from .devices import is_gpu


class PanelBackend:
    """Runs the scoring graphs of several bundles, each with its exemplar cache, on the processor.

    Args:
        bundles: name → bundle.
        backends: name → what runs it; they take patches from the host's memory.
        batch_size: images per batch, for all of them; None for each backend's own choice.
    """

    device = "cpu"

    def __init__(
        self, bundles: Mapping[str, Bundle], backends: Mapping[str, Backend], batch_size: int | None = None
    ) -> None:
        self._backends = dict(backends)
        self._members = [
            Member(name, _scorer(backend), bundles[name].info.sampling, batch_size or backend.batch_size)
            for name, backend in backends.items()
        ]
        self.name = ", ".join(sorted({backend.name for backend in backends.values()}))
        self.precision = ", ".join(sorted({backend.precision for backend in backends.values()}))
        # Micro-batches that each of them would have alone, too, if these are equal, as those of processors are.
        self.batch_size = batch_size or math.lcm(*(backend.batch_size for backend in backends.values()))

    def stages(self, settings: StageSettings) -> PanelStages:
        """Open the stages on the processor, as `Backend.stages` describes."""
        return PanelStages(self._members, settings)

    def close(self) -> None:
        """Close each of them."""
        for backend in self._backends.values():
            backend.close()


def check_panel_devices(devices: Sequence[str]) -> None:
    """Raise UsageError if one of `devices` can't score with several bundles in one pass."""
    for device in devices:
        if is_gpu(device):
            raise UsageError(
                f"several bundles in one pass are scored on processors, not on {device}: use "
                f"{option('--devices', 'cpu')}, or a run for each bundle"
            )


def _scorer(backend: Backend) -> PatchScorer:
    assert hasattr(backend, "score"), f"{backend.name} takes no patches from the host's memory"
    return cast("PatchScorer", backend)
