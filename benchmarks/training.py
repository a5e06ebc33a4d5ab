"""Measure what the parts of the method are worth, and how many exemplars it takes, on made-up images.

python -m benchmarks.training [--images N] [--epochs N] [--patch-size P] [methods] [exemplars]
"""

from __future__ import annotations

import argparse
import logging
import resource
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pscr_export.selection import select
from pscr_training.checkpoints import load_model
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.data.splits import split
from pscr_training.evaluate import EvaluateConfig, chosen_exemplars, evaluate
from pscr_training.metrics import plcc, srcc
from pscr_training.scoring import encode, labels_of, scores
from pscr_training.train import train

from pscr_engine.sampling import Sampling

from .common import CACHE, RESULTS, record

WAYS: dict[str, dict[str, Any]] = {
    "NR (no reference)": {"method": "no-reference"},
    "CR (whole image, resized)": {"sampling": "none"},
    "PSCR, RPS": {"sampling": "rps"},
    "PSCR, NOPS": {"sampling": "nops"},
    "PSCR, OPS": {"sampling": "ops"},
}
COUNTS = (1, 3, 10, 30, 100, None)
DRAWS = 50
METHOD = (
    "Made-up 512×512 images with known degradations and labels with rater noise (seed 1), split at random 80/20 as the "
    "authors do, a tenth of the training images for validation. ResNet-18 from random weights, Adam, 5e-4, batches of "
    "16 of which all pairs are compared, the same number of epochs for all; the last epoch's weights, scored on the "
    "test images against all training images, with 95% bootstrap intervals over images. CPU seconds are the process's."
)


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if "methods" in arguments.parts:
        print(methods(arguments))
    if "exemplars" in arguments.parts:
        print(exemplars(arguments))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["methods", "exemplars"])
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patch-size", type=int, default=48)
    return parser.parse_args()


def _source(arguments: argparse.Namespace) -> Source:
    return Source("synthetic", str(CACHE / f"synthetic-{arguments.images}"), images=arguments.images)


def _folder(arguments: argparse.Namespace, way: str) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in way)
    return CACHE / f"training-{arguments.images}-{arguments.patch_size}-{name}"


def methods(arguments: argparse.Namespace) -> Path:
    """Train and evaluate each way alike, and write the record."""
    figures: dict[str, Any] = {}
    for way, options in WAYS.items():
        config = TrainConfig(
            _source(arguments), out=_folder(arguments, way), weights="none", patch_size=arguments.patch_size,
            epochs=arguments.epochs, batch_size=16, learning_rate=5e-4, pairs="all", **options,
        )  # fmt: skip
        start, before = perf_counter(), _cpu_seconds()
        result = train(config)
        wall, used = perf_counter() - start, _cpu_seconds() - before
        evaluation = evaluate(EvaluateConfig(result.last))
        figures[way] = {
            "test": {
                name: [round(x, 4) for x in value]
                for name, value in evaluation.metrics.as_json().items()
                if name != "images"
            },
            "val_srcc by epoch": [round(entry["val_srcc"], 3) for entry in result.history],
            "training, wall seconds": round(wall),
            "training, CPU seconds": round(used),
        }
        print(way, figures[way]["test"]["srcc"], f"{used / 60:.1f} CPU minutes", flush=True)
    settings = {"images": arguments.images, "epochs": arguments.epochs, "patch_size": arguments.patch_size}
    return record("training-synthetic", METHOD, {**settings, "torch": torch.__version__, "methods": figures})


def exemplars(arguments: argparse.Namespace) -> Path:
    """Measure how SRCC depends on number and choice of exemplars, with the model trained with OPS; write the record."""
    model, trained, _ = load_model(_folder(arguments, "PSCR, OPS") / "last.pt")
    labelled = _source(arguments).open()
    parts = split(labelled, "random", seed=1)
    sampling = Sampling.create(trained.sampling, trained.patch_size)
    known = chosen_exemplars(trained, None, "all", 0)
    queries, all_features = encode(model, parts.test, sampling), encode(model, known, sampling)
    labels, wanted = labels_of(known), labels_of(parts.test)
    figures: dict[str, Any] = {}
    for count in COUNTS:
        for rule in ("random", "stratified"):
            draws = DRAWS if rule == "random" and count is not None else 1
            measured = []
            for seed in range(draws):
                chosen = select(labels.tolist(), count, rule, seed)
                predicted = scores(model, queries, all_features[chosen], torch.from_numpy(labels[chosen]).float())
                measured.append(
                    (srcc(predicted, wanted), plcc(predicted, wanted), float(np.abs(predicted - wanted).mean()))
                )
            columns = np.array(measured)
            figures[f"{'all' if count is None else count} {rule}"] = {
                name: {"mean": round(float(column.mean()), 4), "sd": round(float(column.std()), 4),
                       "min": round(float(column.min()), 4), "max": round(float(column.max()), 4)}
                for name, column in zip(("srcc", "plcc", "mean |difference|"), columns.T, strict=True)
            }  # fmt: skip
            print(count, rule, figures[f"{'all' if count is None else count} {rule}"]["srcc"], flush=True)
    _plot(figures)
    method = f"{METHOD} Random choices: {DRAWS} draws each; figures over draws."
    return record("exemplar-choice-synthetic", method, {"training images": len(known), "choices": figures})


def _plot(figures: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    names = ["all" if count is None else str(count) for count in COUNTS]
    for rule, mark in (("random", "o"), ("stratified", "s")):
        values = [figures[f"{name} {rule}"]["srcc"] for name in names]
        middle = [value["mean"] for value in values]
        spread = [[m - value["min"] for m, value in zip(middle, values, strict=True)],
                  [value["max"] - m for m, value in zip(middle, values, strict=True)]]  # fmt: skip
        axes.errorbar(range(len(names)), middle, yerr=spread, marker=mark, capsize=3, label=rule)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("exemplars")
    axes.set_ylabel("SRCC on the test images (lowest to highest draw)")
    axes.legend()
    figure.savefig(RESULTS / "exemplar-choice-synthetic.svg", metadata={"Date": None})


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
