"""Measure how well each trained model follows people's ratings of images that it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pscr_export.selection import select
from pscr_training.checkpoints import load_model
from pscr_training.config import FREEZE_ALL
from pscr_training.data.duplicates import separate_duplicates
from pscr_training.data.labelled import Item
from pscr_training.data.splits import Split, leakage, split
from pscr_training.evaluate import chosen_exemplars
from pscr_training.frozen_norms import FoldedTrunk
from pscr_training.method import Model
from pscr_training.metrics import Floats, Metrics, measure, plcc, srcc
from pscr_training.scoring import direct_scores, encode, labels_of, scores
from torch import Tensor

from pscr_engine.atomic import sha256_of
from pscr_engine.sampling import Sampling

from ..common import RESULTS, record
from .recipes import RECIPES, SHIPPED, Place

EXEMPLARS = 64
COUNTS = (1, 3, 10, 30, 64, 128, 256, 512, None)
DRAWS = 20
METHOD = (
    "AGIQA-3K's 2,982 images and mos_quality. Test images are never trained on nor used to choose anything: the epoch "
    "is chosen by SRCC on validation images (a tenth of the training images; of the prompts, where the split is by "
    "prompt). Training and validation images that are byte for byte a test image are left out of training. PyTorch "
    "FP32, nine patches (OPS), 64 exemplars spread over the training images' labels unless said otherwise. Intervals: "
    "95%, bootstrap over test images, 1,000 resamples. How each was trained: settings."
)
# Read off the PSCR authors' training logs and papers (pairs: SRCC, PLCC): best epoch on the test images themselves.
PUBLISHED = {
    "random split, best epoch on the test images (authors' logs)": {
        "PSCR, ResNet18": [0.8683, 0.9034],
        "PSCR, InceptionV4": [0.8757, 0.9100],
        "no reference, ResNet18": [0.8582, 0.8894],
        "no reference, InceptionV4": [0.8664, 0.9010],
    },
    "random split, mean of the last ten epochs (authors' logs)": {
        "PSCR, ResNet18": [0.856, 0.897],
        "PSCR, InceptionV4": [0.866, 0.904],
        "no reference, ResNet18": [0.832, 0.876],
        "no reference, InceptionV4": [0.843, 0.884],
    },
    "the paper's split, as cited by later work": {"PSCR": [0.8498, 0.9059]},
}


class Trained(NamedTuple):
    """A checkpoint and the split that it was trained on."""

    model: Model
    record: Any
    parts: Split
    copies: list[Item]
    sampling: Sampling

    @classmethod
    def load(cls, path: Path, place: Place) -> Trained:
        """Load a checkpoint, with its images where `place` says."""
        model, trained, _ = load_model(path)
        model.eval()
        model.folded_trunk = FoldedTrunk(model.trunk)
        labelled = place.source().open()
        own = trained.split
        parts, copies = separate_duplicates(split(labelled, own["rule"], seed=own["seed"], val_share=own["val_share"]))
        sampling = Sampling.create(trained.sampling, trained.patch_size, int(trained.settings["seed"]))
        return cls(model, trained, parts, copies, sampling)

    def encode(self, items: list[Item]) -> Tensor:
        """Encode images, float32 [N, C]."""
        return encode(self.model, items, self.sampling)

    def scores(self, queries: Tensor, exemplars: Tensor, labels: Floats) -> Floats:
        """Score queries against exemplars, or directly where the method has none."""
        if self.record.method == "no-reference":
            return direct_scores(self.model, queries)
        return scores(self.model, queries, exemplars, torch.from_numpy(labels).float())


def figures(place: Place) -> Path:
    """Evaluate every training that is there, and record the figures beside the published ones.

    Figures already recorded of the same checkpoints are kept.
    """
    recorded: dict[str, Any] = json.loads(RECORD.read_text())["models"] if RECORD.exists() else {}
    for name in RECIPES:
        files = [place.training(name) / file for file in ("best.pt", "last.pt")]
        if all(file.is_file() for file in files):
            digests = [sha256_of(file) for file in files]
            if recorded.get(name, {}).get("checkpoints") != digests:
                recorded[name] = {"checkpoints": digests, **_one(name, place.training(name), place)}
            print(name, recorded[name]["validation-chosen epoch"]["srcc"], flush=True)
            _keep(recorded)
    return _keep(recorded)


def _keep(recorded: dict[str, Any]) -> Path:
    models = {name: recorded[name] for name in RECIPES if name in recorded}
    missing = [name for name in RECIPES if name not in recorded]
    return record("agiqa-3k", METHOD, {"models": models, "not trained yet": missing, "published": PUBLISHED})


def _one(name: str, folder: Path, place: Place) -> dict[str, Any]:
    best = Trained.load(folder / "best.pt", place)
    settings = {key: value for key, value in best.record.settings.items() if key != "weights"}
    figures: dict[str, Any] = {
        "split": best.record.split,
        "images": {part: len(getattr(best.parts, part)) for part in ("train", "val", "test")},
        "left out as copies": [item.name for item in best.copies],
        "test images with a prompt that was trained on": leakage([*best.parts.train, *best.parts.val], best.parts.test),
        "settings": settings,
        "epochs": load_model(folder / "last.pt")[1].history,
    }
    exemplars = chosen_exemplars(best.record, EXEMPLARS, "stratified", 0)
    labels, wanted = labels_of(exemplars), labels_of(best.parts.test)
    same_trunk = tuple(settings.get("freeze", ())) == FREEZE_ALL
    for title, file in (("validation-chosen epoch", "best.pt"), ("last epoch", "last.pt")):
        trained = best if file == "best.pt" else Trained.load(folder / file, place)
        if file == "best.pt" or not same_trunk:
            queries = trained.encode(best.parts.test)
            known = trained.encode(exemplars) if trained.record.method == "contrastive" else queries[:0]
        predicted = trained.scores(queries, known, labels)
        figures[title] = {"epoch": len(trained.record.history), **rounded(measure(predicted, wanted))}
        if file == "best.pt":
            figures["per generator"] = _per_generator(best.parts.test, predicted)
            figures["test images with a copy left out of training"] = _copied(best, predicted)
            if name == SHIPPED:
                figures["by exemplars"] = _by_exemplars(best, queries)
    return figures


def _copied(trained: Trained, predicted: Floats) -> dict[str, Any]:
    """Count the test images that have a copy left out of training, and measure SRCC and PLCC without them."""
    copies = {sha256_of(item.file) for item in trained.copies}
    kept = np.array([sha256_of(item.file) not in copies for item in trained.parts.test])
    metrics = measure(predicted[kept], labels_of(trained.parts.test)[kept])
    return {
        "images": int((~kept).sum()),
        "srcc without": round(metrics.srcc[0], 4),
        "plcc without": round(metrics.plcc[0], 4),
    }


def _per_generator(items: list[Item], predicted: Floats) -> dict[str, Any]:
    """Measure SRCC and PLCC within the images of each generator and setting."""
    names = np.array([item.name.rsplit(".", 1)[0].rsplit("_", 1)[0] for item in items])
    wanted = labels_of(items)
    out = {}
    for name in sorted(set(names)):
        chosen = names == name
        metrics = measure(predicted[chosen], wanted[chosen])
        out[str(name)] = {
            "images": int(chosen.sum()),
            "mean label": round(float(wanted[chosen].mean()), 3),
            "mean score": round(float(predicted[chosen].mean()), 3),
            "srcc": [round(x, 4) for x in metrics.srcc],
            "plcc": [round(x, 4) for x in metrics.plcc],
        }
    return out


def _by_exemplars(trained: Trained, queries: Tensor) -> dict[str, Any]:
    """Measure validation figures, by which choices are made, and test figures, by number and choice of exemplars."""
    known = list(trained.parts.train)
    features, labels = trained.encode(known), labels_of(known)
    sides = {"validation": (trained.encode(trained.parts.val), labels_of(trained.parts.val)),
             "test": (queries, labels_of(trained.parts.test))}  # fmt: skip
    out: dict[str, Any] = {}
    for count in COUNTS:
        for rule in ("stratified", "random"):
            draws = DRAWS if rule == "random" and count is not None else 1
            if rule == "random" and count is None:
                continue
            values: dict[str, list[tuple[float, ...]]] = {side: [] for side in sides}
            for seed in range(draws):
                chosen = select(labels.tolist(), count, rule, seed)
                for side, (some, wanted) in sides.items():
                    predicted = trained.scores(some, features[chosen], labels[chosen])
                    rmse = float(np.sqrt(np.mean((predicted - wanted) ** 2)))
                    values[side].append((srcc(predicted, wanted), plcc(predicted, wanted), rmse))
            out[f"{'all' if count is None else count} {rule}"] = {
                side: {
                    metric: {"mean": round(float(column.mean()), 4), "sd": round(float(column.std()), 4)}
                    for metric, column in zip(("srcc", "plcc", "rmse"), np.array(rows).T, strict=True)
                }
                for side, rows in values.items()
            }
    return out


def rounded(metrics: Metrics) -> dict[str, Any]:
    """Return metrics for a record, rounded to four digits."""
    return {
        name: value if name == "images" else [round(x, 4) for x in value] for name, value in metrics.as_json().items()
    }


RECORD = RESULTS / "agiqa-3k.json"
