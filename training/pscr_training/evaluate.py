"""Measures how well a checkpoint or a bundle predicts the labels of a split."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model and the images that it is to score, before any is scored.

    Args:
        config: what was asked for.
        labelled: the set that the images are of.
        items: the images.
        leakage: share of the images whose prompt was trained on; None if not known.
        score: scores images; returns float64 [N], the number of exemplars and the precision.
        known: returns files, and SHA-256 of files, that it was trained on or has as exemplars, as far as it says.
    """

    config: EvaluateConfig
    labelled: Labelled
    items: Sequence[Item]
    leakage: float | None
    score: Callable[[Sequence[Item], Progress], tuple[Floats, int, str]]
    known: Callable[[], tuple[Sequence[str], Sequence[str]]]

    def run(self, progress: Progress = silent) -> Evaluation:
        """Score the images and compare the scores with the labels.

        Raises:
            CheckpointError, BundleError, DatasetError: the model or an image can't be used.
        """
        predicted, exemplars, precision = self.score(self.items, progress)
        labels = labels_of(self.items)
        return Evaluation(
            str(self.config.model),
            f"{self.labelled.name}, {self.labelled.label}, {self.config.part}",
            self.items,
            predicted,
            labels,
            measure(predicted, labels, self.config.seed),
            exemplars,
            precision,
            self.leakage,
        )


def evaluate(config: EvaluateConfig, progress: Progress = silent) -> Evaluation:
    """Score a part of a split and compare the scores with the labels.

    Raises:
        UsageError: settings that don't go together.
        CheckpointError, BundleError, DatasetError: the model or the data can't be used.
    """
    return prepare(config).run(progress)


def prepare(config: EvaluateConfig, same_images: Prepared | None = None) -> Prepared:
    """Find the model and the images, and check both, before any image is scored.

    Args:
        config: what is asked for.
        same_images: whose images a bundle takes if none are named, since it knows none.

    Raises:
        UsageError, CheckpointError, BundleError, DatasetError: as `evaluate`.
    """
    if is_bundle(config.model):
        return _prepare_bundle(config, choose_bundle(str(config.model)), same_images)
    return _prepare_checkpoint(config)


def is_bundle(model: Path) -> bool:
    """Tell whether a model is a bundle, or the name of a shipped one, and not a checkpoint."""
    name = str(model)
    return model.is_dir() or (not os.path.lexists(name) and (name in shipped_models() or not model.suffix))


def _prepare_checkpoint(config: EvaluateConfig) -> Prepared:
    device = choose_device(config.device)
    model, record, _ = load_model(config.model)
    sampling = Sampling.create(record.sampling, record.patch_size, int(record.settings["seed"]))
    labelled = (config.source or Source(**record.database)).open()
    items, leaked = _part(config, labelled, record)

    def score(items: Sequence[Item], progress: Progress) -> tuple[Floats, int, str]:
        model.to(device).eval()
        features = encode(model, items, sampling, config.workers, progress)
        if record.method != "contrastive":
            return direct_scores(model, features), 0, "fp32"
        exemplars = chosen_exemplars(record, config.num_exemplars, config.select, config.seed)
        known = encode(model, exemplars, sampling, config.workers, progress, "encode exemplars")
        labels = torch.from_numpy(labels_of(exemplars)).float().to(device)
        return scores(model, features, known, labels), len(exemplars), "fp32"

    return Prepared(config, labelled, items, leaked, score, lambda: (record.exemplars["files"], ()))


def _prepare_bundle(config: EvaluateConfig, choice: BundleChoice, same_images: Prepared | None) -> Prepared:
    from pscr_engine import Scorer

    labelled: Labelled | None = None
    items: list[Item] = []
    leaked: float | None = None
    if config.source is not None:
        labelled = config.source.open()
        items, leaked = _part(config, labelled, None)
    elif same_images is not None:
        labelled, items = same_images.labelled, list(same_images.items)
    if labelled is None:
        raise UsageError(
            f"a bundle does not say what it was trained on: name labelled images with {option('--dataset')}"
        )

    def score(items: Sequence[Item], progress: Progress) -> tuple[Floats, int, str]:
        predicted = []
        with Scorer.open(choice, device=config.device, precision=config.precision) as scorer:
            for item, image in zip(items, scorer.stream(item.file for item in items), strict=True):
                if image.score is None:
                    raise DatasetError(f"{item.file}: {image.error}")
                predicted.append(image.score)
                progress("score images", len(predicted), len(items))
            return np.array(predicted, np.float64), scorer.bundle.exemplars.count, scorer.backend.precision

    return Prepared(
        config, labelled, items, leaked, score, lambda: ((), [digest for _, digest in choice.open().exemplar_files()])
    )


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
