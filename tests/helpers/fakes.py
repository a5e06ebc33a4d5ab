"""A backend without a network: an image's score is the mean brightness of its patches."""

from __future__ import annotations

import numpy as np

from pscr_engine.stages.base import StageSettings
from pscr_engine.stages.infer import BatchScores, Inference
from pscr_engine.stages.on_host import HostStages


class FakeBackend:
    name, device, precision, runs = "fake", "cpu", "fp32", 1

    def __init__(self, patches: int, batch_size: int = 4, exemplars: int = 3) -> None:
        self.patches, self.batch_size, self.exemplars = patches, batch_size, exemplars
        self.batches: list[int] = []

    def stages(self, settings: StageSettings) -> HostStages:
        return HostStages(Inference(self, settings), settings)

    def close(self) -> None:
        pass

    def score(self, patches: np.ndarray, *, features: bool = False) -> BatchScores:
        by_image = patches.reshape(-1, self.patches, *patches.shape[1:])
        self.batches.append(len(by_image))
        brightness = by_image.mean((1, 2, 3, 4), dtype=np.float64).astype(np.float32)
        offsets = np.linspace(-1, 1, self.exemplars, dtype=np.float32)
        vector = np.stack([brightness, -brightness], axis=1) if features else None
        return BatchScores(brightness, brightness[:, None] + offsets, vector)
