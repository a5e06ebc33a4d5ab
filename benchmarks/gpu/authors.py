"""Compare `pscr-engine score` with the algorithm of the PSCR authors' code, in eager PyTorch on the same card."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .clock import rate
from .engines import torch_lacks
from .place import REFERENCE, Place
from .result import Result, SkippedError
from .whole import score

_TIMES = 150
_STARTS = (0, 150, 288)
_SIDE = 224
_ROWS = 20_000
_GOLDEN = "queries/q01_astronaut.png"


def run(place: Place, result: Result) -> None:
    """Measure the authors' algorithm, in FP32 as they wrote it: 180 patches of ten pairs are encoded per image."""
    reason = torch_lacks(place)
    if reason:
        raise SkippedError(reason)
    import torch

    paths, golden = place.images("jpg"), place.golden()
    for backbone in place.backbones:
        authors = AuthorsAlgorithm(place, backbone)
        images = cycle(paths)
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            off = abs(
                authors.score(REFERENCE / "images" / _GOLDEN)
                - golden["models"][backbone]["runs"]["ops"]["score"][_GOLDEN]
            )
            result.check(f"{backbone}: the authors' algorithm gives their score", off < 1e-3, f"off by {off:.1e}")
        with torch.inference_mode():
            eager = rate(
                partial(_score_next, authors, images),
                lambda: torch.cuda.synchronize(place.device),
                1,
                2 * place.seconds,
            )
        ours = score(place, place.bundle(backbone), "jpg", round(_ROWS * min(1.0, place.seconds)))["images_per_second"]
        result.figures[backbone] = {"authors' algorithm, images/s": round(eager, 2), "score, images/s": round(ours)}
        result.target(f"{backbone}: times the authors' algorithm", ours / eager, _TIMES)


def _score_next(authors: AuthorsAlgorithm, images: Iterator[Path]) -> None:
    authors.score(next(images))


class AuthorsAlgorithm:
    """The authors' algorithm, image by image: each pair is read, decoded, normalised, cropped, encoded, compared."""

    def __init__(self, place: Place, backbone: str) -> None:
        import torch
        from pscr_export.checkpoint import read_checkpoint

        checkpoint = read_checkpoint(place.checkpoint(backbone), backbone)
        C = checkpoint.backbone.feature_size
        self._device = place.name
        self._trunk = checkpoint.trunk.to(place.name).eval()
        self._regressor = torch.nn.Sequential(torch.nn.Linear(2 * C, C), torch.nn.ReLU(), torch.nn.Linear(C, 1))
        self._regressor[0].load_state_dict({"weight": checkpoint.fc1_weight, "bias": checkpoint.fc1_bias})
        self._regressor[2].load_state_dict({"weight": checkpoint.fc2_weight, "bias": checkpoint.fc2_bias})
        self._regressor.to(place.name)
        listed = [line.split(",") for line in (REFERENCE / "images/exemplars.csv").read_text().splitlines()[1:]]
        self._exemplars = [(REFERENCE / "images" / path, float(label)) for path, label in listed]

    def score(self, image: Path) -> float:
        """Return an image's score: the mean over exemplars of label + delta."""
        import torch

        scores = []
        for exemplar, label in self._exemplars:
            pair = torch.stack([_patches(image), _patches(exemplar)]).to(self._device)
            features = self._trunk(pair.flatten(0, 1)).unflatten(0, (2, 9)).mean(1)
            scores.append(label + self._regressor(features.flatten()).item())
        return float(np.mean(scores))


def _patches(file: Path) -> Any:
    """Read the nine normalised patches of a file, float32 [9, 3, 224, 224]."""
    import torch
    from torchvision.transforms.functional import normalize, to_tensor

    pixels = to_tensor(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))
    pixels = normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return torch.stack([pixels[:, i : i + _SIDE, j : j + _SIDE] for i in _STARTS for j in _STARTS])
