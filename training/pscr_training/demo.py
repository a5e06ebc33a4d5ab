"""`pscr-engine demo`: the whole path on made-up images."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pscr_engine.cli import logs
from pscr_engine.cli.progress import progress
from pscr_engine.cli.run_progress import run_progress
from pscr_engine.errors import OutputError
from pscr_engine.synthetic import write_images

if TYPE_CHECKING:
    from pscr_engine.runners.steps import RunResult

_MARK = ".pscr-engine-demo"
# A model that learns something in two minutes on two cores; `train` has the defaults for a real one.
_PATCH_SIZE, _BATCH_SIZE, _LEARNING_RATE = 48, 16, 5e-4


@click.command()
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Folder to work in.")
@click.option("--images", "count", default=120, show_default=True, help="How many images to score.")
@click.option("--train-images", default=500, show_default=True, help="How many images to train on.")
@click.option("--epochs", default=10, show_default=True, help="How often it sees each of them.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Other seeds, other images and weights."
)
def demo(out: Path, count: int, train_images: int, epochs: int, seed: int) -> None:
    """Run the whole path on made-up images: train, export, score, compare.

    Makes labelled images with known degradations, trains a small ResNet-18 model on them, exports it,
    scores images that it has not seen (one of them broken on purpose), and says how well the scores
    follow the labels.
    """
    if count < 1:
        raise click.BadParameter("at least 1", param_hint="--images")
    logs.configure(as_json=False)
    from pscr_export.export import ExportConfig, export_bundle

    from pscr_engine import Scorer
    from pscr_engine.config import ScoreConfig

    from .data.open import Source
    from .train import TrainConfig, train

    _clear(out)
    click.echo(f"1. make {train_images} labelled images, and {count} to score, in {out}/")
    source = Source("synthetic", str(out / "labelled"), images=train_images, seed=seed)
    source.open()
    manifest = write_images(out / "images", "images.csv", count, seed + 1)
    _break_one(manifest)
    click.echo(f"2. pscr-engine train --dataset synthetic --data {out}/labelled --out {out}/training ...")
    config = TrainConfig(
        source,
        out=out / "training",
        weights="none",
        pairs="all",
        patch_size=_PATCH_SIZE,
        epochs=epochs,
        batch_size=_BATCH_SIZE,
        learning_rate=_LEARNING_RATE,
        seed=seed,
    )
    with progress("images") as report:
        trained = train(config, report)
    click.echo(f"3. pscr-engine export --ckpt {trained.best} --out {out}/model.pscr")
    with progress("images") as report:
        bundle = export_bundle(ExportConfig(trained.best, out=out / "model.pscr"), report)
    click.echo(f"4. pscr-engine score --manifest {manifest} --bundle {out}/model.pscr --out {out}/scores")
    with run_progress(as_json=False) as show:
        result = Scorer.score_manifest(ScoreConfig(str(manifest), bundle=bundle.path, out=out / "scores"), show)
    _show(manifest, out / "scores", result)


def _show(manifest: Path, out: Path, result: RunResult) -> None:
    """The first rows beside their labels, and how well all of them agree."""
    import numpy as np
    import pyarrow.parquet as pq

    from .metrics import srcc

    with manifest.open(newline="") as file:
        labels = [float(line["mos"]) for line in csv.DictReader(file)]
    table = pq.read_table(sorted(out.glob("part-*.parquet")), columns=["row", "path", "score", "score_std", "status"])
    rows = table.to_pylist()
    click.echo(f"\n{'row':>3}  {'path':<12} {'label':>7} {'score':>8} {'score_std':>9}  status")
    for row, label in zip(rows[:8], labels, strict=False):
        numbers = f"{row['score']:8.4f} {row['score_std']:9.4f}" if row["status"] == "ok" else f"{'-':>8} {'-':>9}"
        click.echo(f"{row['row']:>3}  {row['path']:<12} {label:7.4f} {numbers}  {row['status']}")
    click.echo(f"...  {result.rows} rows, {result.failed} failed, {result.scored / result.seconds:.1f} images/s")
    scored = [(row["score"], label) for row, label in zip(rows, labels, strict=True) if row["status"] == "ok"]
    if len(scored) > 2:
        agreement = srcc(*np.array(scored, np.float64).T)
        click.echo(f"SRCC of {len(scored)} scores with the labels of these unseen images: {agreement:.3f}")
    click.echo(f"scores: {out}/part-*.parquet")


def _clear(out: Path) -> None:
    """Make `out` an empty folder, unless it holds something that no demo made."""
    if out.exists() and not (out / _MARK).is_file():
        raise OutputError(f"{out}: exists and was not made by the demo; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()


def _break_one(manifest: Path) -> None:
    """Cut the third image short: broken files are part of every real collection."""
    victim = manifest.parent / "0002.jpg"
    if victim.is_file():
        victim.write_bytes(victim.read_bytes()[:2000])
