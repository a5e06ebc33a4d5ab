"""The command `pscr-engine inspect`: say what is in a bundle."""

from __future__ import annotations

import json

import click

from ..bundle import Parity, PatchScores
from ..models import choose_bundle
from ..statistics.risk import needed
from . import logs


@click.command()
@click.argument("bundle", required=False, metavar="[NAME|PATH|URI]")
@click.option("--json", "as_json", is_flag=True, help="Print bundle.json's content as one JSON object.")
def inspect(bundle: str | None, as_json: bool) -> None:
    """Say what is in a bundle, and verify it.

    It is a folder that pscr-engine export made, its copy in an object store, or the name of a shipped model;
    unless you say which, model.pscr if it is here, else the shipped model. The size and SHA-256 of every file
    in it are compared with those of the export.
    """
    logs.configure(as_json=False)
    choice = choose_bundle(bundle, "BUNDLE")
    opened = choice.open()
    choice.log()
    info, labels = opened.info, opened.exemplars.labels
    if as_json:
        click.echo(json.dumps({**info.as_json(), "digest": opened.digest}, indent=2))
        return
    sampling = info.sampling
    rows = [
        ("bundle", f"{opened.shown} (all digests match)"),
        ("digest", opened.digest),
        ("backbone", f"{info.backbone}, {info.feature_size} features"),
        (
            "sampling",
            f"{sampling.name}: {sampling.patches} patches of {info.patch_size}×{info.patch_size} pixels",
        ),
        ("exemplars", f"{opened.exemplars.count} from {info.exemplars.get('source', 'an unknown list')}"),
        (
            "labels",
            f"{labels.min():g} to {labels.max():g}, mean {labels.mean():.4g}; range {_range(info.label_range)}",
        ),
        ("checkpoint", _checkpoint(info.checkpoint)),
        ("made by", ", ".join(f"{name} {version}" for name, version in info.created_by.items())),
    ]
    for precision, graph in info.graphs.items():
        size = (opened.path / graph.file).stat().st_size / 1e6
        rows.append((precision, f"{graph.file}, {size:.1f} MB, opset {graph.opset}; {_parity(graph.parity)}"))
    if opened.patch_scores is not None:
        rows.append(("calibrated", describe_calibration(opened.patch_scores)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"{name:<{width}}  {text}")


def describe_calibration(scores: PatchScores) -> str:
    """Say of a bundle's calibration on how many images it is, and what that is enough for."""
    facts = scores.facts()
    order = " ".join(str(index + 1) for index in scores.order)
    smallest = next((risk for risk in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05) if needed(risk) <= facts["images"]), None)
    enough = "too few for --keep-above" if smallest is None else f"enough for --risk {smallest:g}"
    return f"{', '.join(scores.scores)}, on {facts['images']} images, {enough}; patches by what they tell: {order}"


def _range(label_range: tuple[float, float]) -> str:
    return f"{label_range[0]:g} to {label_range[1]:g}"


def _checkpoint(facts: object) -> str:
    if not isinstance(facts, dict):
        return "unknown"
    parts = [str(facts.get("file", "unknown"))]
    if facts.get("epoch") is not None:
        parts.append(f"epoch {facts['epoch']}")
    if facts.get("rho_best") is not None:
        parts.append(f"best SRCC {facts['rho_best']:.4f}")
    return ", ".join(parts)


def _parity(parity: Parity) -> str:
    srcc = "" if parity.srcc is None else f", SRCC {parity.srcc:.6f}"
    verdict = "passed" if parity.passed else "FAILED, kept on request"
    return (
        f"parity {verdict}: max |difference| {parity.max_abs_diff:.2e} of {parity.tolerance:.2e} allowed{srcc}, "
        f"{parity.images} images"
    )
