"""The exemplar cache of a bundle, and its reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EXEMPLAR_TENSORS = "exemplars.safetensors"


@dataclass(frozen=True, slots=True)
class Exemplars:
    """The exemplar cache: what scoring needs of the labelled images that queries are compared with.

    Args:
        hidden: float32 [M, C], We·f(e) + b1 of each exemplar: its half of the head's first layer.
        labels: float32 [M], the exemplars' scores on the label scale.
        features: float32 [M, C], f(e); not used for scoring, kept so that the cache can be checked.
    """

    hidden: NDArray[np.float32]
    labels: NDArray[np.float32]
    features: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Return M, the number of exemplars."""
        return int(self.labels.shape[0])

    def check(self, feature_size: int) -> None:
        """Raise ValueError unless shapes, types and values fit a model with C = `feature_size`."""
        M = self.labels.shape[0]
        for name, array, shape in (
            ("hidden", self.hidden, (M, feature_size)),
            ("labels", self.labels, (M,)),
            ("features", self.features, (M, feature_size)),
        ):
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
        if M == 0:
            raise ValueError("there are no exemplars")


def read_exemplars(path: Path) -> Exemplars:
    """Read the exemplar cache of a bundle's folder; ValueError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(str(path / EXEMPLAR_TENSORS))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{EXEMPLAR_TENSORS}: {error}") from error
    return Exemplars(tensors["hidden"], tensors["labels"], tensors["features"])
