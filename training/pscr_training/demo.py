"""`pscr-engine demo`: the whole path on made-up images."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import click

from pscr_engine.cli.progress import progress
from pscr_engine.cli.run_progress import run_progress
from pscr_engine.errors import OutputError

_MARK = ".pscr-engine-demo"


@click.command()
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Folder to work in.")
@click.option("--images", "count", default=24, show_default=True, help="How many images to score.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32), default=1, show_default=True, help="Other seeds, other images and weights."
)
def demo(out: Path, count: int, seed: int) -> None:
    """Run the whole path on made-up images.

    Makes exemplars with labels, images to score (one of them broken on purpose) and a ResNet-18
    checkpoint with random weights; exports that; scores the images; shows the first scores.
    The weights are untrained, so the scores say nothing about quality: it is the path that is shown.
    """
    import pyarrow.parquet as pq
    from pscr_export.export import ExportConfig, export_bundle

    from pscr_engine import Scorer
    from pscr_engine.config import ScoreConfig

    from .untrained import write_untrained_checkpoint

    if count < 1:
        raise click.BadParameter("at least 1", param_hint="--images")
    _clear(out)
    click.echo(f"1. make 10 exemplars and {count} images in {out}/")
    exemplars = write_images(out / "exemplars", "exemplars.csv", 10, seed)
    manifest = write_images(out / "images", "images.csv", count, seed + 1)
    _break_one(manifest)
    click.echo(f"2. make an untrained ResNet-18 checkpoint: {out}/checkpoint.pt")
    write_untrained_checkpoint(out / "checkpoint.pt", seed=seed)
    click.echo(f"3. pscr-engine export --ckpt {out}/checkpoint.pt --exemplars {exemplars} --out {out}/model.pscr")
    with progress("images") as report:
        bundle = export_bundle(ExportConfig(out / "checkpoint.pt", exemplars, out / "model.pscr"), report)
    click.echo(f"4. pscr-engine score --manifest {manifest} --bundle {out}/model.pscr --out {out}/scores")
    with run_progress(as_json=False) as show:
        result = Scorer.score_manifest(ScoreConfig(str(manifest), bundle=bundle.path, out=out / "scores"), show)
    table = pq.read_table(out / "scores" / "part-000000.parquet")
    click.echo(f"\n{'row':>3}  {'path':<12} {'score':>8} {'score_std':>9}  status")
    for row in table.slice(0, 8).to_pylist():
        numbers = f"{row['score']:8.4f} {row['score_std']:9.4f}" if row["status"] == "ok" else f"{'-':>8} {'-':>9}"
        click.echo(f"{row['row']:>3}  {row['path']:<12} {numbers}  {row['status']}")
    click.echo(f"...  {result.rows} rows, {result.failed} failed, {result.scored / result.seconds:.1f} images/s")
    click.echo("untrained weights: these scores only show that the path works")
    click.echo(f"scores: {out}/scores/part-*.parquet")


def _clear(out: Path) -> None:
    """Make `out` an empty folder, unless it holds something that no demo made."""
    if out.exists() and not (out / _MARK).is_file():
        raise OutputError(f"{out}: exists and was not made by the demo; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()


def write_images(folder: Path, name: str, count: int, seed: int) -> Path:
    """Make `count` labelled images in a new folder, listed in its file `name` (path, mos)."""
    from .synthetic import generate

    folder.mkdir()
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "mos"])
        for index, made in enumerate(generate(count, seed=seed)):
            path = f"{index:04d}.png" if index % 4 == 3 else f"{index:04d}.jpg"
            made.image.save(folder / path, quality=92)
            writer.writerow([path, made.mos])
    return folder / name


def _break_one(manifest: Path) -> None:
    """Cut the third image short: broken files are part of every real collection."""
    victim = manifest.parent / "0002.jpg"
    if victim.is_file():
        victim.write_bytes(victim.read_bytes()[:2000])
