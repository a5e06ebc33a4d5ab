"""The command `pscr-engine evaluate`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import click

from pscr_engine.cli import logs
from pscr_engine.cli.parameters import default_option, number_option
from pscr_engine.cli.step_progress import progress
from pscr_engine.errors import UsageError

from .cli_train import SPLITS, source_options

if TYPE_CHECKING:
    from .comparing import Comparison
    from .evaluate import Evaluation

_NAMES = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC, logistic fit",
    "rmse": "RMSE",
    "rmse_logistic": "RMSE, logistic fit",
}


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@source_options
@click.option(
    "--split", type=click.Choice(SPLITS), help="As for train.  [default: the checkpoint's; for a bundle all images]"
)
@default_option("--part", "test", "Which images of the data set.", type=click.Choice(["test", "val", "train", "all"]))
@number_option("--num-exemplars", "all", help="Of a checkpoint's training images; a bundle has its own.")
@default_option(
    "--select",
    "stratified",
    "Which exemplars: spread evenly over the labels' order, or random.",
    type=click.Choice(["stratified", "random"]),
)
@default_option("--seed", 0, "Of --select random and of the bootstrap.")
@default_option("--precision", "auto", "Of a bundle.")
@default_option("--device", "auto", "cpu, cuda:0, ...")
@default_option("--workers", 0, "Processes that read images; 0 for none.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures, and each image's score.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a scatter plot, .svg or .png, of one model.")
def evaluate(
    models: tuple[Path, ...],
    dataset: str | None,
    root: str | None,
    label: str | None,
    path_column: str | None,
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

    Several models are evaluated on the same images, and each is compared with the first: differences with 95%
    intervals of a paired bootstrap. Models that would be evaluated on different images, or on some that they were
    trained on, are refused. Bundles take the checkpoints' images, unless others are named.

    \b
    Examples:
      pscr-engine evaluate trained/best.pt --plot best.svg
      pscr-engine evaluate model.pscr --precision fp16 --dataset agiqa-3k --data AGIQA-3K --split paper
      pscr-engine evaluate resnet18/best.pt resnet50/best.pt
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
    source = None if dataset is None else Source(dataset, root, label, split_column, images, path_column=path_column)
    configs = [EvaluateConfig(model, source, **settings) for model in models]
    if len(configs) > 1:
        if plot is not None:
            raise UsageError(f"--plot {plot}: shows one model; leave it out, or name one model")
        from .comparing import compare

        with progress("images") as report:
            comparison = compare(configs, report)
        click.echo("\n".join(comparison_lines(comparison)))
        if json_file is not None:
            _write_json(json_file, comparison_facts(comparison))
        return
    with progress("images") as report:
        evaluation = run(configs[0], report)
    values, count = evaluation.metrics.as_json(), evaluation.metrics.images
    click.echo(f"{_described(evaluation)}; {evaluation.data}: {count} images")
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
        facts = {**_facts(evaluation), "data": evaluation.data, "leakage": evaluation.leakage}
        _write_json(json_file, {**facts, "metrics": values, "images": rows})
    if plot is not None:
        from .scatter import scatter

        scatter(evaluation, plot)


def comparison_lines(comparison: Comparison) -> list[str]:
    """Say how models differ, in lines: the models by letters, then each one's figures beside the first one's."""
    evaluations = comparison.evaluations
    letters = [ascii_uppercase[at] if at < len(ascii_uppercase) else f"M{at}" for at in range(len(evaluations))]
    first = evaluations[0]
    lines = [f"{first.data}: {first.metrics.images} images, the same for all"]
    for letter, evaluation in zip(letters, evaluations, strict=True):
        leak = f"; {evaluation.leakage:.0%} have a prompt that it was trained on" if evaluation.leakage else ""
        lines.append(f"  {letter}  {_described(evaluation)}{leak}")
    for letter, evaluation, found in zip(letters[1:], evaluations[1:], comparison.differences, strict=True):
        lines.append(f"\n{'':<6} {letters[0]:>8} {letter:>8} {f'{letter} - {letters[0]}':>9}   95% of the difference")
        ours, theirs = first.metrics.as_json(), evaluation.metrics.as_json()
        for name, (value, low, high) in found.items():
            one, other = ours[name][0], theirs[name][0]
            lines.append(f"{_NAMES[name]:<6} {one:8.4f} {other:8.4f} {value:+9.4f}   {low:+.4f} to {high:+.4f}")
    return lines


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, for a JSON file."""
    evaluations = comparison.evaluations
    first = evaluations[0]
    rows = zip(first.items, *(evaluation.scores for evaluation in evaluations), strict=True)
    return {
        "data": first.data,
        "models": [
            {**_facts(each), "leakage": each.leakage, "metrics": each.metrics.as_json()} for each in evaluations
        ],
        "differences": [
            {
                "model": evaluation.name,
                "minus": first.name,
                "metrics": {name: list(estimate) for name, estimate in found.items()},
            }
            for evaluation, found in zip(evaluations[1:], comparison.differences, strict=True)
        ],
        "images": [
            {"path": str(item.file), "mos": item.mos, "scores": [round(float(score), 6) for score in scores]}
            for item, *scores in rows
        ],
    }


def _described(evaluation: Evaluation) -> str:
    against = f"{evaluation.exemplars} exemplars" if evaluation.exemplars else "no exemplars"
    return f"{evaluation.name}, {evaluation.precision}, {against}"


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    return {"model": evaluation.name, "precision": evaluation.precision, "exemplars": evaluation.exemplars}


def _write_json(file: Path, facts: dict[str, Any]) -> None:
    file.write_text(json.dumps(facts, indent=1) + "\n")


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
