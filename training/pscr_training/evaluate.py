"""Measures how well a checkpoint or a bundle predicts the labels of a split."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pscr_export.ranges import Range, check_ranges
from pscr_export.record import TrainingRecord
from pscr_export.selection import select

from pscr_engine.errors import DatasetError, UsageError, option
from pscr_engine.models import BundleChoice, choose_bundle, shipped_models
from pscr_engine.progress import Progress, silent
from pscr_engine.sampling import Sampling

from .checkpoints import load_model
from .data.duplicates import separate_duplicates
from .data.labelled import Item, Labelled
from .data.open import Source
from .data.splits import leakage, split
from .device import choose_device
from .metrics import Floats, Metrics, measure
from .scoring import direct_scores, encode, labels_of, scores

log = logging.getLogger("pscr_training")

PARTS = ("test", "val", "train", "all")


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What `pscr-engine evaluate` is asked to do.

    Args:
        model: a checkpoint that was trained here, a bundle, or the name of a shipped model.
        source: the labelled images; None for those that the checkpoint was trained on.
        split: rule of the split; None for the checkpoint's own, or, for a bundle, all images.
        part: which part of the split.
        num_exemplars: how many of a checkpoint's training images are its exemplars; None for all.
        select: rule by which these are chosen.
        seed: seed of that rule and of the bootstrap.
        precision: which graph of a bundle.
        device: where PyTorch or the engine computes.
        workers: processes that read images; 0 for none.
    """

    model: Path
    source: Source | None = None
    split: str | None = None
    part: str = "test"
    num_exemplars: int | None = None
    select: str = "stratified"
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, {"num_exemplars": Range(1)}, also="all")
        check_ranges(self, {"workers": Range(0, 256), "seed": Range(0, 2**63 - 1)})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores and labels of some images, and how well they agree.

    Args:
        name: the model's.
        data: the images' database, label and part.
        items: the images.
        scores, labels: float64 [N].
        metrics: how well these agree.
        exemplars: M, their number; 0 for the no-reference baseline.
        precision: that of the bundle's graph; "fp32" for a checkpoint.
        leakage: share of the images whose prompt was trained on; None if not known.
    """

    name: str
    data: str
    items: Sequence[Item]
    scores: Floats
    labels: Floats
    metrics: Metrics
    exemplars: int
    precision: str
    leakage: float | None


def evaluate(config: EvaluateConfig, progress: Progress = silent) -> Evaluation:
    """Score a part of a split and compare the scores with the labels.

    Raises:
        UsageError: settings that don't go together.
        CheckpointError, BundleError, DatasetError: the model or the data can't be used.
    """
    name = str(config.model)
    is_name = not os.path.lexists(name) and (name in shipped_models() or not config.model.suffix)
    if is_name or config.model.is_dir():
        return _evaluate_bundle(config, choose_bundle(name), progress)
    return _evaluate_checkpoint(config, progress)


def _evaluate_checkpoint(config: EvaluateConfig, progress: Progress) -> Evaluation:
    device = choose_device(config.device)
    model, record, _ = load_model(config.model)
    model.to(device).eval()
    sampling = Sampling.create(record.sampling, record.patch_size, int(record.settings["seed"]))
    labelled = (config.source or Source(**record.database)).open()
    items, leaked = _part(config, labelled, record)
    features = encode(model, items, sampling, config.workers, progress)
    count = 0
    if record.method == "contrastive":
        exemplars = chosen_exemplars(record, config.num_exemplars, config.select, config.seed)
        count = len(exemplars)
        known = encode(model, exemplars, sampling, config.workers, progress, "encode exemplars")
        labels = torch.from_numpy(labels_of(exemplars)).float().to(device)
        predicted = scores(model, features, known, labels)
    else:
        predicted = direct_scores(model, features)
    return _evaluation(config, labelled, items, predicted, count, "fp32", leaked)


def _evaluate_bundle(config: EvaluateConfig, choice: BundleChoice, progress: Progress) -> Evaluation:
    from pscr_engine import Scorer

    if config.source is None:
        raise UsageError(
            f"a bundle does not say what it was trained on: name labelled images with {option('--dataset')}"
        )
    predicted = []
    with Scorer.open(choice, device=config.device, precision=config.precision) as scorer:
        labelled = config.source.open()
        items, leaked = _part(config, labelled, None)
        for item, image in zip(items, scorer.stream(item.file for item in items), strict=True):
            if image.score is None:
                raise DatasetError(f"{item.file}: {image.error}")
            predicted.append(image.score)
            progress("score images", len(predicted), len(items))
        count, precision = scorer.bundle.exemplars.count, scorer.backend.precision
    return _evaluation(config, labelled, items, np.array(predicted, np.float64), count, precision, leaked)


def chosen_exemplars(record: TrainingRecord, count: int | None, rule: str, seed: int) -> list[Item]:
    """Choose exemplars among the training images, at the paths that they had in training.

    Raises:
        DatasetError: they are not there any more.
        ExemplarError: there are too few.
    """
    listed = record.exemplars
    chosen = [
        Item(index, str(listed["names"][index]), Path(listed["files"][index]), float(listed["mos"][index]))
        for index in select(listed["mos"], count, rule, seed)
    ]
    Labelled("the training images", "", chosen, len(chosen), record.label_range).check_files()
    return chosen


def _part(config: EvaluateConfig, labelled: Labelled, record: TrainingRecord | None) -> tuple[list[Item], float | None]:
    if config.part not in PARTS:
        raise UsageError(f"part {config.part!r}: choose from {', '.join(PARTS)}")
    rule, own = config.split, None if record is None or config.source is not None else record.split
    if own is not None and rule in (None, own["rule"]):
        parts = split(labelled, own["rule"], seed=own["seed"], val_share=own["val_share"])
    elif rule is not None:
        parts = split(labelled, rule, seed=1 if record is None else record.split["seed"])
    else:
        parts = None
    if parts is not None and config.part in ("train", "val"):
        labelled.check_files()
        parts = separate_duplicates(parts).split
    if parts is None or config.part == "all":
        items, leaked = list(labelled.items), None
    else:
        items = getattr(parts, config.part)
        leaked = leakage(parts.train, items) if config.part == "test" else None
    if len(items) < 3:
        raise DatasetError(f"{labelled.name}: {len(items)} images are too few to evaluate on")
    Labelled(labelled.name, labelled.label, items, len(items), labelled.label_range).check_files()
    return items, leaked


def _evaluation(
    config: EvaluateConfig,
    labelled: Labelled,
    items: Sequence[Item],
    predicted: Floats,
    exemplars: int,
    precision: str,
    leaked: float | None,
) -> Evaluation:
    labels = labels_of(items)
    return Evaluation(
        str(config.model),
        f"{labelled.name}, {labelled.label}, {config.part}",
        items,
        predicted,
        labels,
        measure(predicted, labels, config.seed),
        exemplars,
        precision,
        leaked,
    )
