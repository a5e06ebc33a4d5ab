"""Compares models on the same images: differences of their figures, with paired bootstrap intervals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pscr_engine.atomic import sha256_of
from pscr_engine.errors import DatasetError, UsageError, option
from pscr_engine.progress import Progress, silent

from .data.labelled import Item
from .evaluate import EvaluateConfig, Evaluation, Prepared, is_bundle, prepare
from .metrics import Estimate, differences

log = logging.getLogger("pscr_training")

# Parts that a model is not to have seen in training. Who asks for the others wants to know just that.
_UNSEEN = ("test", "val")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several models' figures for the same images, and how the others differ from the first.

    Args:
        evaluations: one per model; all have the same images, in the same order.
        differences: for each model but the first its figures minus the first one's: SRCC, KRCC, PLCC, RMSE.
    """

    evaluations: Sequence[Evaluation]
    differences: Sequence[dict[str, Estimate]]


def compare(configs: Sequence[EvaluateConfig], progress: Progress = silent) -> Comparison:
    """Evaluate models on the same images, and compare each with the first.

    Where no images are named, checkpoints take those of their own splits, which must be the same, and bundles take the
    checkpoints'. All is checked before any image is scored.

    Args:
        configs: one per model, at least two.
        progress: told how many images are scored.

    Raises:
        UsageError: fewer than two models.
        DatasetError: the images or labels are not the same for all, or a model was trained on some of them.
        CheckpointError, BundleError: a model can't be used.
    """
    if len(configs) < 2:
        raise UsageError("to compare, name at least two models")
    checkpoints = {index: prepare(config) for index, config in enumerate(configs) if not is_bundle(config.model)}
    first_checkpoint = next(iter(checkpoints.values()), None)
    prepared = [
        checkpoints[index] if index in checkpoints else prepare(config, first_checkpoint)
        for index, config in enumerate(configs)
    ]
    prepared = [prepared[0], *(_in_order_of(prepared[0], other) for other in prepared[1:])]
    for each in prepared:
        _require_unseen(each)
    evaluations = [each.run(progress) for each in prepared]
    first = evaluations[0]
    found = [differences(first.scores, each.scores, first.labels, configs[0].seed) for each in evaluations[1:]]
    return Comparison(evaluations, found)


def _in_order_of(first: Prepared, other: Prepared) -> Prepared:
    """Return `other` with its images in the order of `first`'s.

    Raises:
        DatasetError: they are not the same images, or not with the same labels.
    """
    names = f"{first.config.model} and {other.config.model}"
    rows: dict[Path, list[Item]] = {}
    for item in other.items:
        rows.setdefault(item.file.resolve(), []).append(item)
    ordered = [found.pop(0) for item in first.items if (found := rows.get(item.file.resolve()))]
    if not len(ordered) == len(first.items) == len(other.items):
        raise DatasetError(
            f"{names} would be evaluated on different images ({len(first.items)} and {len(other.items)}, "
            f"{len(ordered)} in common); name the images for all with {option('--dataset')}"
        )
    if differing := sum(mine.mos != theirs.mos for mine, theirs in zip(first.items, ordered, strict=True)):
        raise DatasetError(
            f"{names} would be compared with different labels of {differing} images ({first.labelled.label}, "
            f"{other.labelled.label}); name the labels for all with {option('--dataset')} and {option('--label')}"
        )
    return replace(other, items=ordered)


def _require_unseen(prepared: Prepared) -> None:
    """Say how many of the images a model was trained on; for parts that it is not to have seen, that is an error."""
    seen = _count_seen(prepared)
    if not seen:
        return
    facts = f"{prepared.config.model}: {seen} of the {len(prepared.items)} images were trained on, or are its exemplars"
    if prepared.config.part in _UNSEEN:
        raise DatasetError(
            f"{facts}; compare on images that no model has seen, or knowingly with {option('--part', 'all')}"
        )
    log.warning("%s", facts)


def _count_seen(prepared: Prepared) -> int:
    files, digests = prepared.known()
    known = set(digests)
    by_file = {Path(file).resolve() for file in files}
    sizes = {item.file.stat().st_size for item in prepared.items}
    # Of other sizes, files can't be copies. What isn't there any more can be known by its path only.
    known |= {sha256_of(file) for file in by_file if file.is_file() and file.stat().st_size in sizes}
    return sum(item.file.resolve() in by_file or sha256_of(item.file) in known for item in prepared.items)
