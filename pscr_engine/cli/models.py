"""The command `pscr-engine models`: list the shipped models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..bundle import PRECISIONS
from ..errors import UsageError
from ..models import DEFAULT_MODEL, Interval, ModelFacts, ShippedModel, find_model, shipped_models
from . import logs


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
@click.option(
    "--copy",
    "target",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Copy NAME's bundle to FOLDER, which must not be there yet.",
)
def models(name: str | None, as_json: bool, target: Path | None) -> None:
    """List the shipped models: figures, data, licences.

    With NAME, its model card. Each command that takes a bundle takes NAME, too. Where a bundle must be
    written to, as by compile, make a copy of it.

    \b
    Examples:
      pscr-engine models
      pscr-engine models agiqa3k-lite0
      pscr-engine models agiqa3k-lite0 --copy model.pscr
    """
    logs.configure(as_json=False)
    if target is not None:
        if name is None or as_json:
            raise UsageError("--copy is for one model and by itself, as in: pscr-engine models NAME --copy FOLDER")
        find_model(name).copy(target)
        logs.result(f"{target}: a copy of {name}")
    elif as_json:
        chosen = shipped_models().values() if name is None else [find_model(name)]
        logs.result(json.dumps({"models": [*map(_described, chosen)]}, indent=2, ensure_ascii=False))
    elif name is not None:
        logs.result(find_model(name).card().rstrip())
    else:
        found = "\n\n".join(map(_paragraph, shipped_models().values()))
        logs.result(found or "no model is shipped with this pscr-engine")


def _described(model: ShippedModel) -> dict[str, Any]:
    """Return all that is known about a model, as plain values."""
    return {
        **model.facts().as_json(),
        "default": model.name == DEFAULT_MODEL,
        "path": str(model.path),
        "bytes": model.size(),
        "precisions": _precisions(model),
    }


def _paragraph(model: ShippedModel) -> str:
    facts = model.facts()
    rows = [
        ("trunk", facts.trunk),
        ("trained on", facts.data),
        ("split", facts.split),
        *_agreement(facts),
        ("bundle", f"{model.size() / 1e6:.1f} MB: {', '.join(_precisions(model))}"),
        ("licence", f"{facts.weights_licence}; images: {facts.data_licence}"),
        ("made by", facts.rebuild),
    ]
    head = f"{model.name}{' (the default)' if model.name == DEFAULT_MODEL else ''}: {facts.summary}"
    width = max(len(label) for label, _ in rows)
    return "\n".join([head, *(f"  {label:<{width}}  {text}" for label, text in rows)])


def _agreement(facts: ModelFacts) -> list[tuple[str, str]]:
    """Return a line per precision."""
    return [
        (precision, f"SRCC {_interval(found.srcc)}, PLCC {_interval(found.plcc)}, {found.images} test images")
        for precision, found in facts.figures.items()
    ]


def _interval(figure: Interval) -> str:
    return f"{figure.value:.3f} (95% {figure.low:.3f} to {figure.high:.3f})"


def _precisions(model: ShippedModel) -> list[str]:
    graphs = model.open().info.graphs
    return [name for name in PRECISIONS if name in graphs]
