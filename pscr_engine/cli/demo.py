"""The command `pscr-engine demo`: see it all work on made-up images."""

from __future__ import annotations

import csv
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..errors import BundleError, MissingDependencyError, OutputError, UsageError
from . import logs
from .group import load
from .parameters import default_option, out_option
from .score_progress import run_progress
from .step_progress import progress

if TYPE_CHECKING:
    from ..models import BundleChoice

# Named, not imported: the engine loads nothing of the training side unless it is asked to train.
_TRAIN_MODEL = "pscr_training.demo:train_model"
_NEEDED_TO_TRAIN = ("torch", "torchvision", "timm", "onnx", "onnxscript", "scipy")
_IMAGES, _IMAGES_WITH_TRAIN = 200, 120
_MARK = ".pscr-engine-demo"
_ROWS_SHOWN = 8


@click.command()
@out_option("demo", "Folder to work in.")
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=1),
    help=f"How many images to score.  [default: {_IMAGES}; with --train {_IMAGES_WITH_TRAIN}]",
)
@default_option("--seed", 1, "Other seeds, other images.", type=click.IntRange(0, 2**31))
@click.option("--train", is_flag=True, help="Train and export a model first, instead of taking the shipped one.")
@default_option("--train-images", 500, "With --train: how many images to train on.")
@default_option("--epochs", 10, "With --train: how often it sees each of them.")
@click.pass_context
def demo(
    context: click.Context, out: Path, count: int | None, seed: int, train: bool, train_images: int, epochs: int
) -> None:
    """Score made-up images with the shipped model, and make a report.

    The images are procedural scenes, degraded by known amounts, one of them broken on purpose. It takes
    seconds and needs no PyTorch. With --train it goes the whole way, in minutes: train a small ResNet-18 model
    on other such images, export it, score.

    \b
    Examples:
      pscr-engine demo
      pscr-engine demo --train --epochs 5
    """
    logs.configure(as_json=False)
    if not train:
        for name, flag in (("train_images", "--train-images"), ("epochs", "--epochs")):
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise UsageError(f"{flag} is about training: add --train, or leave it out")
    _require_own_folder(out)
    bundle: BundleChoice | Path
    if train:
        for package in _NEEDED_TO_TRAIN:
            if find_spec(package) is None:
                raise MissingDependencyError(package, "demo --train", "cpu,export,train")
        _empty(out)
        bundle = load(_TRAIN_MODEL)(out, images=train_images, epochs=epochs, seed=seed)
        steps = _Steps(after=3)
    else:
        from ..models import DEFAULT_MODEL, BundleChoice, shipped_models

        if DEFAULT_MODEL not in shipped_models():
            raise BundleError("no model is shipped with this pscr-engine; pscr-engine demo --train makes one")
        bundle = BundleChoice.of_model(DEFAULT_MODEL)
        _empty(out)
        steps = _Steps()
    _score_images(out, count or (_IMAGES_WITH_TRAIN if train else _IMAGES), seed + 1, bundle, steps)


class _Steps:
    """Numbers the steps on stdout."""

    def __init__(self, after: int = 0) -> None:
        self._done = after

    def begin(self, what: str) -> None:
        self._done += 1
        logs.result(f"{self._done}. {what}")


def _score_images(out: Path, count: int, seed: int, bundle: BundleChoice | Path, steps: _Steps) -> None:
    """Make images, score them, and show what came out."""
    from ..config import ScoreConfig
    from ..scorer import Scorer
    from ..synthetic import write_images

    steps.begin(f"make {count} images, degraded by known amounts, in {out}/images/")
    with progress("images") as report:
        manifest = write_images(
            out / "images", "images.csv", count, seed, lambda done: report("make images", done, count)
        )
    _break_one(manifest)
    scores = out / "scores"
    steps.begin(f"pscr-engine score --manifest {manifest} --bundle {bundle} --out {scores}")
    with run_progress(as_json=False) as show:
        result = Scorer.score_manifest(ScoreConfig(str(manifest), bundle=bundle, out=scores), show)
    page = _make_report(scores, out / "report.html", steps)
    speed = f"{result.scored / result.seconds:.1f} images/s"
    logs.result("\n" + "\n".join(_summary(manifest, scores, f"{result.failed} failed, {speed}")))
    logs.result(f"scores: {scores}/part-*.parquet\n{page}")


def _make_report(scores: Path, page: Path, steps: _Steps) -> str:
    """Make the page, if the extra that it needs is there. Returns a line that says where it is."""
    if find_spec("jinja2") is None:
        return "report: none, it needs jinja2: pip install 'pscr-engine[report]'"
    from ..report.report import ReportConfig, report

    steps.begin(f"pscr-engine report {scores} --out {page}")
    report(ReportConfig(scores, page))
    return f"report: {page}, open it in a browser"


def _summary(manifest: Path, scores: Path, outcome: str) -> list[str]:
    """Return lines that show the first rows beside their labels, and how the scores follow the labels."""
    import numpy as np
    import pyarrow.parquet as pq

    from ..statistics.ranks import spearman

    with manifest.open(newline="") as file:
        labels = [float(line["mos"]) for line in csv.DictReader(file)]
    columns = ["row", "path", "score", "score_std", "status"]
    rows = pq.read_table(sorted(scores.glob("part-*.parquet")), columns=columns).to_pylist()
    lines = [f"{'row':>3}  {'path':<12} {'label':>7} {'score':>8} {'score_std':>9}  status"]
    for row, label in zip(rows[:_ROWS_SHOWN], labels, strict=False):
        numbers = f"{row['score']:8.4f} {row['score_std']:9.4f}" if row["status"] == "ok" else f"{'-':>8} {'-':>9}"
        lines.append(f"{row['row']:>3}  {row['path']:<12} {label:7.4f} {numbers}  {row['status']}")
    lines.append(f"...  {len(rows)} rows, {outcome}")
    pairs = [(label, row["score"]) for row, label in zip(rows, labels, strict=True) if row["status"] == "ok"]
    if len(pairs) < 3:
        return lines
    pairs.sort()
    found = np.array([score for _, score in pairs], np.float32)
    low, middle, high = (part.mean() for part in np.array_split(found, 3))
    lines.append(f"lowest score {found.min():.2f}, median {np.median(found):.2f}, highest {found.max():.2f}")
    lines.append(
        f"mean score: {low:.2f} for the third with the lowest labels, {middle:.2f} for the middle, {high:.2f} for the "
        "highest"
    )
    agreement = spearman(np.array([label for label, _ in pairs], np.float32), found)
    if agreement is not None:
        lines.append(f"SRCC of {len(pairs)} scores with the labels: {agreement:.3f}")
    lines.append("images and labels are made up: this shows that it works, not how good it is on real images")
    return lines


def _require_own_folder(out: Path) -> None:
    """Raise OutputError if `out` holds something that no demo made."""
    if out.exists() and not (out / _MARK).is_file():
        raise OutputError(f"{out}: exists and was not made by the demo; choose another --out")


def _empty(out: Path) -> None:
    """Make `out` an empty folder."""
    try:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / _MARK).touch()
    except OSError as error:
        raise OutputError(f"{out}: can't write there ({error.strerror}); choose another --out") from error


def _break_one(manifest: Path) -> None:
    """Cut the third image short: broken files are part of every real collection."""
    victim = manifest.parent / "0002.jpg"
    if victim.is_file():
        victim.write_bytes(victim.read_bytes()[:2000])
