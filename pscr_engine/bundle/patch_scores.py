"""What a bundle knows of scores from some of the patches: measured on images, so that decisions can be made early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics.ranks import spearman

PATCH_SCORES = "patch_scores.safetensors"


@dataclass(frozen=True, slots=True)
class PatchScores:
    """Scores of calibration images by their first 1, 2, ... D patches, in the order that tells most.

    Args:
        order: the D patches' indices; the first k of them are those that scores by k patches are from.
        scores: precision → float32 [N, D]; column k - 1 has scores by k patches, the last one the plain scores.
    """

    order: tuple[int, ...]
    scores: Mapping[str, NDArray[np.float32]]

    def check(self, patches: int, precisions: Mapping[str, Any]) -> None:
        """Raise ValueError unless it fits a bundle with D = `patches` and these precisions."""
        if sorted(self.order) != list(range(patches)):
            raise ValueError(f"{PATCH_SCORES}: the order of patches is {list(self.order)}")
        for precision, scores in self.scores.items():
            if precision not in precisions:
                raise ValueError(f"{PATCH_SCORES}: has scores of {precision}, which is no precision of the bundle")
            if scores.ndim != 2 or scores.shape[1] != patches or scores.dtype != np.float32 or not len(scores):
                raise ValueError(f"{PATCH_SCORES}: scores of {precision} are {scores.dtype} {list(scores.shape)}")
            if not np.isfinite(scores).all():
                raise ValueError(f"{PATCH_SCORES}: holds values that are not finite")

    def write(self, folder: Path) -> None:
        """Write the file into a bundle's folder; its digest is `write_contents`' concern."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[Any]] = {"order": np.array(self.order, np.int64)}
        tensors |= {f"scores.{precision}": np.ascontiguousarray(each) for precision, each in self.scores.items()}
        (folder / PATCH_SCORES).write_bytes(save(tensors))

    @classmethod
    def read(cls, folder: Path) -> PatchScores:
        """Read the file of a bundle's folder; ValueError if it is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(str(folder / PATCH_SCORES))
            order = tuple(int(index) for index in tensors.pop("order"))
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise ValueError(f"{PATCH_SCORES}: {error}") from error
        return cls(order, {name.removeprefix("scores."): each for name, each in tensors.items()})

    def facts(self) -> dict[str, Any]:
        """Return what `bundle.json` says of them: how far scores by k patches are from the plain ones."""
        by_patches = {}
        for precision, scores in self.scores.items():
            whole = scores[:, -1]
            by_patches[precision] = [
                {
                    "patches": k + 1,
                    "rms_difference": float(np.sqrt(np.mean((scores[:, k] - whole).astype(np.float64) ** 2))),
                    "srcc": spearman(scores[:, k], whole),
                }
                for k in range(scores.shape[1])
            ]
        images = max(len(scores) for scores in self.scores.values())
        return {"file": PATCH_SCORES, "images": images, "order": list(self.order), "by_patches": by_patches}
