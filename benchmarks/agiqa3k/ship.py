"""Make the model that ships: round the trained weights, export, measure, and write facts and model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from pscr_export.export import ExportConfig, export_bundle
from pscr_training.checkpoints import load_model, save_checkpoint
from pscr_training.data.duplicates import separate_duplicates
from pscr_training.data.splits import Split, split
from pscr_training.metrics import measure
from pscr_training.rounding import round_to_half
from pscr_training.scoring import labels_of

from pscr_engine.atomic import sha256_of
from pscr_engine.bundle import MANIFEST_NAME, Bundle
from pscr_engine.models.shipped import FOLDER

from .card import card
from .fidelity import scores_of, write_manifest
from .figures import rounded
from .recipes import RECIPES, SHIPPED, Place

NAME = "agiqa3k-lite0"
# Chosen on validation images: see "by exemplars" in results/agiqa-3k.json.
EXEMPLARS = 200
PRECISIONS = ("fp32", "fp16", "int8")
REBUILD = "python -m benchmarks.agiqa3k --data AGIQA-3K --weights lite0.pth train lite0 figures ship calibrate"


def rounded_checkpoint(place: Place) -> Path:
    """Write the trained model with 16-bit weights, and return the file."""
    source, target = place.training(SHIPPED) / "best.pt", place.work / f"{NAME}.pt"
    model, trained, content = load_model(source)
    model.eval()
    round_to_half(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # nothing is trained any more
    save_checkpoint(target, model, optimizer, int(content["epoch"]), trained)
    return target


def export(
    place: Place,
    name: str,
    checkpoint: Path,
    out: Path,
    precisions: tuple[str, ...],
    accept: frozenset[str] = frozenset(),
    exemplars: int = EXEMPLARS,
    images: int | None = None,
) -> Bundle:
    """Export a checkpoint; INT8 is calibrated and checked on the recipe's validation images.

    Args:
        place: where the images are.
        name: the recipe's name.
        checkpoint: what the recipe has trained.
        out: the bundle to write.
        precisions: the precisions of its graphs.
        accept: precisions to keep even if their check fails.
        exemplars: number of exemplars.
        images: number of validation images to use; None for all.
    """
    val = parts_of(place, name).val[:images]
    return export_bundle(
        ExportConfig(
            checkpoint,
            out=out,
            precisions=precisions,
            calibration=str(write_manifest(place.work / "validation.csv", val)),
            num_exemplars=exemplars,
            accept_parity=accept,
            overwrite=True,
        )
    )


def parts_of(place: Place, name: str) -> Split:
    """Return the split that a recipe trains on, without copies."""
    return separate_duplicates(split(place.source().open(), RECIPES[name]["split"], seed=1)).split


def ship(place: Place) -> Bundle:
    """Export the trained model into the package, with its facts and its card."""
    checkpoint, parts = rounded_checkpoint(place), parts_of(place, SHIPPED)
    made = export(place, SHIPPED, checkpoint, place.work / f"{NAME}.pscr", PRECISIONS)
    target = FOLDER / made.path.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(made.path, target)
    bundle = Bundle.open(target)
    files, labels = [item.file for item in parts.test], labels_of(parts.test)
    figures = {
        precision: rounded(measure(scores_of(bundle, precision, files), labels)) for precision in bundle.info.graphs
    }
    sizes = {part: len(getattr(parts, part)) for part in ("train", "val", "test")}
    facts: dict[str, Any] = {
        "format": "pscr-model",
        "format_version": 1,
        "name": NAME,
        "bundle": sha256_of(target / MANIFEST_NAME),
        "summary": "Quality of AI-generated images as people rated it, 0 to 5; small and fast on CPUs",
        "trunk": "EfficientNet-Lite0 (timm's tf_efficientnet_lite0), nine 224-pixel patches, from ImageNet weights",
        "data": "AGIQA-3K, mean opinion scores of quality: 2,982 images of six generators",
        "split": "prompt-disjoint, seed 1: {train:,} images to train, {val} to validate, {test} to test".format(
            **sizes
        ),
        "figures": figures,
        "licence": {
            "data": "labels MIT; the images' mirror says academic, non-commercial use",
            "weights": "research use, because of the images; the ImageNet weights it began with are Apache-2.0",
        },
        "rebuild": REBUILD,
    }
    (FOLDER / f"{NAME}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (FOLDER / f"{NAME}.md").write_text(card(facts, bundle), encoding="utf-8")
    return bundle
