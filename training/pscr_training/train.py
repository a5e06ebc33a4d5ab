"""Trains a model: epochs of steps, each followed by validation and a checkpoint that the next run can go on from."""

from __future__ import annotations

import csv
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pscr_export.backbones import Backbone
from pscr_export.record import TrainingRecord
from pscr_export.selection import select
from pscr_export.timm_backbone import find_backbone
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from pscr_engine.errors import CheckpointError, DatasetError, OutputError, PscrError, UsageError, one_line, option
from pscr_engine.progress import Progress, silent
from pscr_engine.sampling import Sampling

from .checkpoints import TRAINED, load_model, save_checkpoint
from .config import FREEZE_ALL, TrainConfig
from .data.duplicates import separate_duplicates
from .data.labelled import Item, Labelled, listed
from .data.patches import Batch, Decoded, Pairs, Shuffled, Singles, stack
from .data.splits import Split, leakage, split
from .device import choose_device
from .frozen_norms import FoldedTrunk, keep_batch_norms
from .method import Model, all_pairs_loss, contrastive_loss, no_reference_loss
from .metrics import plcc, srcc
from .optimizing import freeze, make_optimizer, set_rates
from .scoring import direct_scores, encode, encode_patches, labels_of, scores
from .weights import load_weights

log = logging.getLogger("pscr_training")

LAST, BEST, LOG = "last.pt", "best.pt", "log.csv"
_VALIDATION_EXEMPLARS = 64
# Trunks that take every size that `TrainConfig` allows; whether others do is tried, which takes seconds.
_ANY_PATCH_SIZE = frozenset({"resnet18", "resnet50", "vgg16", "vgg19"})
_COLUMNS = ("epoch", "loss", "val_srcc", "val_plcc", "images_per_second", "seconds")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training has produced.

    Args:
        best, last: checkpoints of the best epoch and of the last one.
        history: one entry per epoch.
    """

    best: Path
    last: Path
    history: list[dict[str, float]]


def train(config: TrainConfig, progress: Progress = silent) -> TrainResult:
    """Train a model, or go on with a training that is in `config.out`.

    Raises:
        UsageError, OutputError: settings that can't be used, or a folder that holds something else.
        DatasetError: the data are missing or malformed.
        CheckpointError, PscrError: the weights can't be loaded, or the loss is not finite any more.
    """
    device = choose_device(config.device)
    _check_tensorboard(config)
    backbone = find_backbone(config.backbone)
    sampling = Sampling.create(config.sampling, config.patch_size or backbone.patch_size)
    train_sampling = sampling
    if config.train_sampling is not None:
        train_sampling = Sampling.create(config.train_sampling, sampling.patch_size)
        if config.freeze == FREEZE_ALL and train_sampling != sampling:
            raise UsageError(
                f"{option('--train-sampling')}: with {option('--freeze', 'all')} each image is encoded once, by "
                f"{option('--sampling')}; leave it out"
            )
    if config.train_patches is not None and config.train_patches > train_sampling.patches:
        raise UsageError(
            f"{option('--train-patches')} {config.train_patches}: {train_sampling.name} has only "
            f"{train_sampling.patches} patches"
        )
    if sampling.patch_size != backbone.patch_size and backbone.name not in _ANY_PATCH_SIZE:
        _check_patch_size(backbone, sampling.patch_size)
    labelled = config.source.open()
    labelled.check_files()
    parts = split(labelled, config.split, seed=config.seed, val_share=config.val_share)
    parts, copies = separate_duplicates(parts)
    _require_enough(labelled, parts, config.split)
    _describe(labelled, parts, copies)
    record = _record(config, labelled, parts, sampling)
    run = _Run.begin(config, record, device)
    with_partners = config.method == "contrastive" and config.pairs == "partner"
    pairs = (Pairs if with_partners else Singles)(
        parts.train,
        train_sampling,
        config.seed,
        Decoded(config.cache_mb * 10**6 // max(1, config.workers)),
        config.train_patches,
        run.fixed_features(parts.train, sampling, progress),
    )
    with _Log(config) as log_file:
        log_file.rewrite(run.history)
        for epoch in range(len(run.history), config.epochs):
            start = perf_counter()
            loss = run.epoch(epoch, pairs, progress)
            seconds = perf_counter() - start
            val_srcc, val_plcc = run.validate(parts, sampling)
            entry = {
                "epoch": epoch,
                "loss": loss,
                "val_srcc": val_srcc,
                "val_plcc": val_plcc,
                "images_per_second": round(len(parts.train) / seconds, 2),
                "seconds": round(seconds, 2),
            }
            run.finish(epoch, entry)
            log_file.add(entry)
            log.info(
                "epoch %d of %d: loss %.4f, validation SRCC %.4f, PLCC %.4f (%.0f s)",
                epoch + 1, config.epochs, loss, val_srcc, val_plcc, seconds,
            )  # fmt: skip
    return TrainResult(config.out / BEST, config.out / LAST, run.history)


@dataclass(slots=True)
class _Run:
    """Model, optimiser and record of one training."""

    config: TrainConfig
    model: Model
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    record: TrainingRecord
    device: torch.device
    averaged: AveragedModel | None = None
    encoded: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def begin(cls, config: TrainConfig, record: TrainingRecord, device: torch.device) -> _Run:
        last = config.out / LAST
        afresh = config.overwrite and config.out.exists()
        if afresh and not last.exists():
            raise OutputError(f"{config.out}: is no training; choose another {option('--out')}")
        torch.manual_seed(config.seed)
        content: dict[str, Any] | None = None
        if last.exists() and not afresh:
            model, earlier, content = load_model(last)
            _check_same(config.out, earlier, record)
            record = earlier
            log.info("going on with %s: %d epochs are done", config.out, len(earlier.history))
        elif not afresh and config.out.exists() and any(config.out.iterdir()):
            raise OutputError(f"{config.out}: holds something else; choose another {option('--out')}")
        else:
            backbone = find_backbone(config.backbone)
            model = Model(backbone, config.method)
            freeze(model.trunk, config.freeze)  # an unknown name is said before weights are downloaded
            load_weights(model.trunk, backbone, config.weights)
        freeze(model.trunk, config.freeze)
        if afresh:  # only now: what can't start leaves an earlier training as it was
            shutil.rmtree(config.out)
        config.out.mkdir(parents=True, exist_ok=True)
        averaged = None
        if config.average:
            average = get_ema_multi_avg_fn(config.average)  # type: ignore[no-untyped-call]
            averaged = AveragedModel(model, multi_avg_fn=average).to(device)
            if content is not None:  # what was loaded is the average
                model.trunk.load_state_dict(content[TRAINED]["backbone"])
                model.regressor.load_state_dict(content[TRAINED]["regressor"])
                averaged.n_averaged.fill_(1)
        model.to(device)
        for each in (model, *([] if averaged is None else [cast(Model, averaged.module)])):
            each.trunk.to(memory_format=torch.channels_last)
            if config.freeze_batch_norms or config.freeze == FREEZE_ALL:
                each.folded_trunk = FoldedTrunk(each.trunk)
        optimizer = make_optimizer(config, model)
        scaler = torch.amp.GradScaler(device.type, enabled=config.amp and device.type == "cuda")
        if content is not None:
            optimizer.load_state_dict(content["optimizer"])
            if "scaler" in content and scaler.is_enabled():
                scaler.load_state_dict(content["scaler"])
        return cls(config, model, optimizer, scaler, record, device, averaged)

    @property
    def scored(self) -> Model:
        """Return the model that is validated and kept: the averaged one, if there is an average."""
        return self.model if self.averaged is None else cast(Model, self.averaged.module)

    def fixed_features(
        self, items: Sequence[Item], sampling: Sampling, progress: Progress
    ) -> NDArray[np.float32] | None:
        """Compute the features of each item's patches, float32 [N, D, C], if the trunk is not trained; else None."""
        if self.config.freeze != FREEZE_ALL:
            return None
        return encode_patches(
            self.model,
            items,
            sampling,
            self.config.workers,
            progress,
            "encode training images",
            self.config.amp,
        ).numpy()

    def _begin_epoch(self) -> None:
        """Put the model into training mode, except for what is frozen."""
        self.model.train()
        for name in self.config.freeze:
            (self.model.trunk if name == "all" else self.model.trunk.get_submodule(name)).eval()
        if self.config.freeze_batch_norms:
            keep_batch_norms(self.model.trunk)

    @property
    def history(self) -> list[dict[str, float]]:
        return self.record.history

    def epoch(self, epoch: int, pairs: Pairs, progress: Progress) -> float:
        """Train on every training image once and return the mean loss."""
        c = self.config
        batches = Shuffled(len(pairs.items), c.batch_size, c.seed, epoch)
        loader = DataLoader(pairs, batch_sampler=batches, num_workers=c.workers, collate_fn=stack)
        total, seen, steps = 0.0, 0, len(batches)
        updates = -(-steps // c.accumulate)
        self._begin_epoch()
        self.optimizer.zero_grad()
        for step, batch in enumerate(loader):
            group = min(c.accumulate, steps - step // c.accumulate * c.accumulate)
            loss = self._loss(batch)
            value = loss.item()
            if not math.isfinite(value):
                less = f" or no {option('--amp')}" if c.amp else ""
                raise PscrError(
                    f"the loss is {value} in epoch {epoch + 1}: use a smaller {option('--learning-rate')}{less}; "
                    f"{c.out / LAST} holds the epoch "
                    f"before"
                )
            self.scaler.scale(loss / group).backward()  # type: ignore[no-untyped-call]
            if (step + 1) % c.accumulate == 0 or step + 1 == steps:
                set_rates(self.optimizer, c, epoch + (step // c.accumulate) / updates)
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad()
                if self.averaged is not None:
                    self.averaged.update_parameters(self.model)
            total, seen = total + value * len(batch.mos), seen + len(batch.mos)
            progress(f"epoch {epoch + 1} of {c.epochs}", seen, len(pairs.items))
        return total / seen

    def _loss(self, batch: Batch) -> torch.Tensor:
        on = Batch(*(tensor.to(self.device, non_blocking=True) for tensor in batch))
        kind = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        with torch.autocast(self.device.type, kind, enabled=self.config.amp):
            if self.config.method == "contrastive":
                if self.config.pairs == "all":
                    return all_pairs_loss(self.model, on.patches, on.mos)
                return contrastive_loss(self.model, *on)
            return no_reference_loss(self.model, on.patches, on.mos)

    def validate(self, parts: Split, sampling: Sampling) -> tuple[float, float]:
        """Measure SRCC and PLCC on the validation images, scored against some of the training images."""
        count = min(_VALIDATION_EXEMPLARS, len(parts.train))
        chosen = [parts.train[index] for index in select([item.mos for item in parts.train], count)]
        features = self._encode("val", parts.val, sampling)
        if self.config.method == "contrastive":
            labels = torch.from_numpy(labels_of(chosen)).float().to(self.device)
            predicted = scores(self.scored, features, self._encode("exemplars", chosen, sampling), labels)
        else:
            predicted = direct_scores(self.scored, features)
        return srcc(predicted, labels_of(parts.val)), plcc(predicted, labels_of(parts.val))

    def _encode(self, name: str, items: Sequence[Item], sampling: Sampling) -> Tensor:
        """Compute the features of each item, float32 [N, C]; once per `name` where the trunk is not trained."""
        if self.config.freeze == FREEZE_ALL and name in self.encoded:
            return self.encoded[name]
        features = encode(self.scored, items, sampling, self.config.workers)
        self.encoded = {**self.encoded, name: features} if self.config.freeze == FREEZE_ALL else {}
        return features

    def finish(self, epoch: int, entry: dict[str, float]) -> None:
        """Save the checkpoint of an epoch, as the last one and, if it is, as the best one."""
        value, so_far = entry["val_srcc"], self.record.best
        better = math.isfinite(value) and (so_far is None or value > so_far)
        values = self.record.as_dict()
        del values["version"]
        self.record = TrainingRecord(
            **{**values, "label_range": self.record.label_range, "history": [*self.history, entry],
               "best": value if better else so_far}
        )  # fmt: skip
        out, scaler = self.config.out, self.scaler if self.scaler.is_enabled() else None
        # The best first: if the run ends between the two, the epoch is done again, to the same result.
        if better or not (out / BEST).exists():
            save_checkpoint(out / BEST, self.scored, self.optimizer, epoch, self.record, scaler)
        trained = None if self.averaged is None else self.model
        save_checkpoint(out / LAST, self.scored, self.optimizer, epoch, self.record, scaler, trained)


class _Log:
    """Writer of `log.csv`, and of TensorBoard's files if they are wanted."""

    def __init__(self, config: TrainConfig) -> None:
        self._file = config.out / LOG
        self._board: Any = None
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(config.out / "tensorboard"))

    def rewrite(self, history: list[dict[str, float]]) -> None:
        """Rewrite log.csv from the checkpoint's history."""
        # After a crash the file may lack the last epoch, or have one too many.
        with self._file.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(history)

    def add(self, entry: dict[str, float]) -> None:
        with self._file.open("a", newline="") as file:
            csv.DictWriter(file, _COLUMNS).writerow(entry)
        if self._board is not None:
            for name in ("loss", "val_srcc", "val_plcc"):
                self._board.add_scalar(name, entry[name], entry["epoch"])

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._board is not None:
            self._board.close()


def _check_tensorboard(config: TrainConfig) -> None:
    if config.tensorboard:
        try:
            import torch.utils.tensorboard  # noqa: F401 - whether it is there
        except ImportError:
            raise UsageError(
                f"{option('--tensorboard')} needs the package tensorboard: pip install tensorboard"
            ) from None


def _check_patch_size(backbone: Backbone, patch_size: int) -> None:
    """Raise UsageError unless the trunk can take patches of a size that is not its own."""
    try:
        with torch.inference_mode():
            backbone.build().eval()(torch.zeros(1, 3, patch_size, patch_size))
    except Exception as error:
        raise UsageError(
            f"{option('--patch-size')} {patch_size}: {backbone.name} can't take such patches ({one_line(error, 120)}); "
            f"leave it out for {backbone.patch_size}"
        ) from error


def _require_enough(labelled: Labelled, parts: Split, rule: str) -> None:
    """Raise DatasetError where there are too few images for pairs, or for a correlation."""
    share = "mark more of them val" if rule == "column" else f"use a larger {option('--val-share')}"
    for count, purpose, advice in (
        (len(parts.train), "train on", "use more images"),
        (len(parts.val), "validate on", f"{share}, or more images"),
    ):
        if count < 2:
            raise DatasetError(
                f"{labelled.name}: the split {rule} leaves {count} image{'s' * (count != 1)} to {purpose}, "
                f"and 2 are the least; {advice}"
            )


def _record(config: TrainConfig, labelled: Labelled, parts: Split, sampling: Sampling) -> TrainingRecord:
    return TrainingRecord(
        config.method,
        config.sampling,
        sampling.patch_size,
        config.source.as_dict(),
        {"rule": config.split, "seed": config.seed, "val_share": config.val_share},
        labelled.label_range,
        {
            "names": [item.name for item in parts.train],
            "files": [str(item.file.resolve()) for item in parts.train],
            "mos": [item.mos for item in parts.train],
        },
        config.settings(),
        [],
        None,
    )


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)


def _check_same(out: Path, earlier: TrainingRecord, now: TrainingRecord) -> None:
    """Raise OutputError or CheckpointError unless the training in the folder has the same settings and images."""
    was, wanted = earlier.as_dict(), now.as_dict()
    # Settings that an earlier version did not have: it trained as their defaults say.
    was["settings"] = {**{f.name: f.default for f in fields(TrainConfig) if f.name in now.settings}, **was["settings"]}
    was["settings"]["freeze"] = list(was["settings"]["freeze"])
    for part in ("settings", "database", "split"):
        for name in sorted(was[part].keys() | wanted[part].keys()):
            if was[part].get(name) != wanted[part].get(name):
                raise OutputError(
                    f"{out}: was trained with {name} {_shown(was[part].get(name))}, now it is "
                    f"{_shown(wanted[part].get(name))}; "
                    f"choose another {option('--out')}, or start afresh with {option('--overwrite', True)}"
                )
    if was["exemplars"] != wanted["exemplars"]:
        raise CheckpointError(
            f"{out}: the training images have changed; start afresh with {option('--overwrite', True)}"
        )


def _describe(labelled: Labelled, parts: Split, copies: Sequence[Item]) -> None:
    for note in labelled.notes:
        log.warning("%s: %s", labelled.name, note)
    if copies:
        log.warning(
            "%s: left out %d images whose files are copies of validation or test images: %s",
            labelled.name, len(copies), listed([item.name for item in copies]),
        )  # fmt: skip
    log.info(
        "%s, %s: %d images to train, %d to validate, %d to test",
        labelled.name, labelled.label, len(parts.train), len(parts.val), len(parts.test),
    )  # fmt: skip
    leaked = leakage([*parts.train, *parts.val], parts.test)
    if leaked:
        log.warning(
            "%.0f%% of the test images have a prompt that is also trained on: their scores will look better than "
            f"those of new images ({option('--split', 'prompt-disjoint')} avoids it)",
            100 * leaked,
        )
