"""Measure how near each precision's scores are to FP32's on real images, and whether the file format matters."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pscr_training.data.labelled import Item
from pscr_training.data.splits import split
from pscr_training.evaluate import EvaluateConfig, evaluate
from pscr_training.metrics import Floats, measure, srcc
from pscr_training.scoring import labels_of

from pscr_engine import Scorer
from pscr_engine.bundle import Bundle
from pscr_engine.models import DEFAULT_MODEL

from ..common import RESULTS, record
from .figures import rounded
from .recipes import Place

METHOD = (
    "The 600 test images of AGIQA-3K's prompt-disjoint split (seed 1), of which VGG16 has 60. Each precision's graph "
    "in ONNX Runtime on the CPU against FP32's, same exemplars; differences in units of the labels (0 to 5) and as a "
    "share of that range. 'checkpoint': PyTorch FP32 by `pscr-engine evaluate`, same exemplars. Files: the JPEGs "
    "decoded by Pillow and saved again as PNG and as lossless WebP; scores of these must be equal to the bit."
)


def fidelity(place: Place, name: str, bundle: Bundle, checkpoint: Path, images: int | None = None) -> Path:
    """Measure a model's bundle, and write the record.

    Args:
        place: where the images are.
        name: the model's name in the record.
        bundle: the exported model.
        checkpoint: what it was exported from.
        images: how many of the test images, evenly spaced; None for all.
    """
    path = RESULTS / "agiqa-3k-fidelity.json"
    figures: dict[str, Any] = json.loads(path.read_text())["models"] if path.exists() else {}
    labelled = place.source().open()
    items = split(labelled, "prompt-disjoint", seed=1).test
    if images is not None:
        items = items[:: len(items) // images][:images]
    files, labels = [item.file for item in items], labels_of(items)
    scored = {precision: scores_of(bundle, precision, files) for precision in bundle.info.graphs}
    figures[name] = {"images": len(items), "exemplars": bundle.exemplars.count}
    for precision, scores in scored.items():
        figures[name][precision] = {
            "against fp32": _difference(scores, scored["fp32"], labelled.label_range),
            "against the ratings": rounded(measure(scores, labels)),
        }
    if images is None:
        by_torch = evaluate(
            EvaluateConfig(checkpoint, place.source(), "prompt-disjoint", num_exemplars=bundle.exemplars.count)
        )
        figures[name]["checkpoint against fp32"] = _difference(by_torch.scores, scored["fp32"], labelled.label_range)
    if name == DEFAULT_MODEL:
        fastest = "int8" if "int8" in scored else "fp32"
        figures[name]["files"] = {"precision": fastest, **_formats(bundle, fastest, files, scored[fastest])}
    print(name, json.dumps(figures[name], indent=1), flush=True)
    return record("agiqa-3k-fidelity", METHOD, {"models": figures})


def _difference(scores: Floats, base: Floats, label_range: tuple[float, float]) -> dict[str, Any]:
    off = np.abs(scores - base)
    width = label_range[1] - label_range[0]
    return {
        "largest": float(f"{off.max():.3g}"),
        "mean": float(f"{off.mean():.3g}"),
        "largest, share of the range": float(f"{off.max() / width:.3g}"),
        "srcc": round(srcc(scores, base), 6),
    }


def _formats(bundle: Bundle, precision: str, files: list[Path], base: Floats) -> dict[str, Any]:
    """Score the same pixels from PNG and from lossless WebP files, and return the largest difference of each."""
    figures = {}
    ways: dict[str, dict[str, Any]] = {".png": {"compress_level": 1}, ".webp": {"lossless": True, "method": 0}}
    for suffix, options in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            written = []
            for file in files:
                path = Path(folder) / (file.stem + suffix)
                with Image.open(file) as image:
                    image.convert("RGB").save(path, **options)
                written.append(path)
            converted = scores_of(bundle, precision, written)
        figures[suffix[1:]] = {"images": len(files), "largest difference": float(np.abs(converted - base).max())}
    return figures


def scores_of(bundle: Bundle, precision: str, files: list[Path]) -> Floats:
    """Score files in one precision, float64 [N]."""
    with Scorer.open(bundle.path, device="cpu", precision=precision) as scorer:
        scores = [image.score for image in scorer.stream(files)]
    assert None not in scores
    return np.array(scores, np.float64)


def write_manifest(path: Path, items: list[Item]) -> Path:
    """Write a manifest of images."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path"])
        writer.writerows([str(item.file.resolve())] for item in items)
    return path
