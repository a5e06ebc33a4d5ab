"""The command `pscr-engine evaluate`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from pscr_engine.cli import logs
from pscr_engine.cli.parameters import default_option, number_option
from pscr_engine.cli.step_progress import progress
from pscr_engine.errors import UsageError

from .cli_train import SPLITS, source_options

_NAMES = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC, logistic fit",
    "rmse": "RMSE",
    "rmse_logistic": "RMSE, logistic fit",
}


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@source_options
@click.option("--split", type=click.Choice(SPLITS), help="[default: the checkpoint's; for a bundle all images]")
@default_option("--part", "test", type=click.Choice(["test", "val", "train", "all"]))
@number_option("--num-exemplars", "all", help="Of a checkpoint's training images; a bundle has its own.")
@default_option("--select", "stratified", type=click.Choice(["stratified", "random"]))
@default_option("--seed", 0, "Of --select random and of the bootstrap.")
@default_option("--precision", "auto", "Of a bundle.")
@default_option("--device", "auto", "cpu, cuda:0, ...")
@default_option("--workers", 0, "Processes that read images; 0 for none.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures, and each image's score.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a scatter plot, .svg or .png.")
def evaluate(
    model: Path,
    dataset: str | None,
    root: str | None,
    label: str | None,
    split_column: str | None,
    images: int,
    json_file: Path | None,
    plot: Path | None,
    **settings: Any,
) -> None:
    """Compare a model's scores with labels: SRCC, KRCC, PLCC, RMSE.

    With 95% bootstrap intervals. MODEL is a checkpoint that was trained here, a bundle, or the name of a
    shipped model. A checkpoint is evaluated on the test part of its own split, against its training images as
    exemplars, unless told otherwise.

    \b
    Examples:
      pscr-engine evaluate trained/best.pt --plot best.svg
      pscr-engine evaluate model.pscr --precision fp16 --dataset agiqa-3k --data AGIQA-3K --split paper
    """
    logs.configure(as_json=False)
    from .data.open import Source
    from .evaluate import EvaluateConfig
    from .evaluate import evaluate as run

    if settings["split"] is None and split_column:
        settings["split"] = "column"
    if plot is not None:
        from .scatter import check_plot

        check_plot(plot)
    for option, file in (("--json", json_file), ("--plot", plot)):
        _check_file(option, file)
    source = None if dataset is None else Source(dataset, root, label, split_column, images)
    with progress("images") as report:
        evaluation = run(EvaluateConfig(model, source, **settings), report)
    values, count = evaluation.metrics.as_json(), evaluation.metrics.images
    against = f"{evaluation.exemplars} exemplars" if evaluation.exemplars else "no exemplars"
    click.echo(f"{evaluation.name}, {evaluation.precision}, {against}; {evaluation.data}: {count} images")
    if evaluation.leakage:
        click.echo(f"{evaluation.leakage:.0%} of them have a prompt that was trained on")
    for name, title in _NAMES.items():
        value, low, high = values[name]
        click.echo(f"  {title:<19} {value:8.4f}   95% {low:.4f} to {high:.4f}")
    if json_file is not None:
        rows = [
            {"path": str(item.file), "mos": item.mos, "score": round(float(score), 6)}
            for item, score in zip(evaluation.items, evaluation.scores, strict=True)
        ]
        facts = {"model": evaluation.name, "precision": evaluation.precision, "exemplars": evaluation.exemplars}
        facts |= {"data": evaluation.data, "leakage": evaluation.leakage}
        json_file.write_text(json.dumps({**facts, "metrics": values, "images": rows}, indent=1) + "\n")
    if plot is not None:
        from .scatter import scatter

        scatter(evaluation, plot)


def _check_file(option: str, file: Path | None) -> None:
    """Raise UsageError unless a file can be written where an option names it."""
    if file is None:
        return
    if file.is_dir():
        raise UsageError(f"{option} {file}: is a folder; name a file")
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: there is no folder {file.parent}; make it, or name another file")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{option} {file}: can't be written; name another file")
