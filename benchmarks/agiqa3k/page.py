"""Make the page docs/agiqa-3k.md from the records, and the tables of the shipped model's accuracy from its facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pscr_engine.models import DEFAULT_MODEL, shipped_models

from ..common import RESULTS, ROOT
from ..marked import put
from .recipes import RECIPES, SHIPPED

PAGE = ROOT / "docs" / "agiqa-3k.md"
ACCURACY = (ROOT / "README.md", ROOT / "docs" / "shipped-model.md")
BEGIN, END = "<!-- accuracy: made by python -m benchmarks.agiqa3k ... page -->", "<!-- /accuracy -->"
EARLY = ROOT / "docs" / "early-decisions.md"
EARLY_BEGIN, EARLY_END = "<!-- early: made by python -m benchmarks.agiqa3k ... page -->", "<!-- /early -->"
_TITLES = {
    "lite0": "PSCR, EfficientNet-Lite0",
    "lite0-no-reference": "no reference, EfficientNet-Lite0",
    "lite0-random": "PSCR, EfficientNet-Lite0",
    "lite0-random-no-reference": "no reference, EfficientNet-Lite0",
    "vgg16-head": "PSCR, VGG16, the head alone trained, four patches (NOPS)",
}
_SPLITS = {
    "prompt-disjoint": "Prompts of the test images are not trained on (seed 1)",
    "random": "The PSCR authors' random split: test prompts are trained on, too",
}


def write_page() -> Path:
    """Write the page from the records that there are, and the tables of accuracy."""
    PAGE.write_text(page(), encoding="utf-8")
    for file in ACCURACY:
        put(file, BEGIN, END, accuracy())
    if (RESULTS / "early-decision.json").exists():
        put(EARLY, EARLY_BEGIN, EARLY_END, early())
    return PAGE


def accuracy() -> str:
    """Return the shipped model's agreement with people's ratings by precision, a table in Markdown."""
    lines = ["| | SRCC | PLCC | RMSE |", "| --- | --- | --- | --- |"]
    for precision, figures in shipped_models()[DEFAULT_MODEL].facts().figures.items():
        cells = [interval(list(figures.estimates[name])) for name in ("srcc", "plcc", "rmse")]
        lines.append(f"| {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


def early() -> str:
    """Return what decisions by some of the patches gain, and what few patches lose: tables in Markdown."""
    recorded = _read("early-decision")
    speed = recorded["score"]
    lines = [
        f"Measured on {speed['images']} images of AGIQA-3K that were neither trained nor calibrated on, with the "
        f"shipped model, on two cores ({recorded['machine']['processor']}; `benchmarks/results/early-decision.json`):",
        "",
        "| `score` | fp32, images/s | times plain | int8, images/s | times plain |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way in speed["fp32"]:
        cells = []
        for precision in ("fp32", "int8"):
            measured = speed[precision][way]
            cells += [f"{measured['images per second']['median']:.1f}", f"{measured['times plain']['median']:.2f}"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    lines += ["", "Decisions that differ from those by all nine patches, and patches per image, in FP32:", ""]
    risks = [name for name in next(iter(recorded["fp32"]["decisions"].values())) if name.startswith("risk")]
    lines += [f"| | {' | '.join(risks)} |", f"| --- |{' --- |' * len(risks)}"]
    for title, source in (("", recorded["fp32"]["decisions"]), ("made-up images, ", recorded["made-up images, fp32"])):
        for kept, row in source.items():
            cells = [
                f"{row[risk]['changed']} ({row[risk]['share']:.2%}, 95% {row[risk]['interval'][0]:.2%} to "
                f"{row[risk]['interval'][1]:.2%}), {row[risk]['patches']:.1f} patches"
                for risk in risks
            ]
            lines.append(f"| {title}{kept} | {' | '.join(cells)} |")
    lines += [
        "",
        "Scores by the patches that tell most, against those by all nine, and against people's ratings:",
        "",
        "| patches | difference (root mean square) | 99.5% are within | SRCC with the ratings |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['patches']} | {row['root mean square']:.3f} | {row['99.5% quantile']:.3f} | "
        f"{row['SRCC with ratings']:.4f} |"
        for row in recorded["fp32"]["by patches"]
    ]
    return "\n".join(lines)


def page() -> str:
    """Return the page, Markdown."""
    recorded = _read("agiqa-3k")
    models = recorded["models"]
    lines = [
        "# Trained on people's ratings: AGIQA-3K",
        "",
        "Made by `python -m benchmarks.agiqa3k ... page` from `benchmarks/results/agiqa-3k*.json`, which hold it all.",
        "The images of AGIQA-3K are not part of this project; figures and trained weights are, for research use.",
        "",
        recorded["method"],
        "",
    ]
    for rule, title in _SPLITS.items():
        of_rule = {name: model for name, model in models.items() if model["split"]["rule"] == rule}
        if not of_rule:
            continue
        sizes = next(iter(of_rule.values()))["images"]
        lines += [
            f"## {title}",
            "",
            f"{sizes['train']:,} images to train, {sizes['val']} to validate, {sizes['test']} to test. "
            f"{_copies(next(iter(of_rule.values())))}",
            "",
            "| | epoch | SRCC | KRCC | PLCC | RMSE |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name, model in of_rule.items():
            for which in ("validation-chosen epoch", "last epoch"):
                lines.append(
                    f"| {_TITLES[name]}, {which} | {model[which]['epoch']} | "
                    + " | ".join(interval(model[which][metric]) for metric in ("srcc", "krcc", "plcc", "rmse"))
                    + " |"
                )
        lines += _published(recorded["published"], rule)
        lines.append("")
    missing = [f"{_TITLES[name]} ({RECIPES[name]['split']})" for name in recorded["not trained yet"]]
    if missing:
        lines += [f"Not trained yet: {', '.join(missing)}.", ""]
    lines += _shipped(models[SHIPPED])
    fidelity = RESULTS / "agiqa-3k-fidelity.json"
    if fidelity.exists():
        lines += _fidelity(_read("agiqa-3k-fidelity"))
    if (RESULTS / "agiqa-3k-speed.json").exists():
        lines += _speed(_read("agiqa-3k-speed"))
    return "\n".join(lines)


def _copies(model: dict[str, Any]) -> str:
    """Say how many images were left out of training since their files are copies of others', and what that changes."""
    names, without = model["left out as copies"], model["test images with a copy left out of training"]
    if not names:
        return "No image's file is a copy of one on another side."
    return (
        f"{len(names)} more were left out of training, since their files are copies of ones on another side; "
        f"{without['images']} test images have such a copy. Without these, the first model below has SRCC "
        f"{without['srcc without']:.4f} instead of {model['validation-chosen epoch']['srcc'][0]:.4f}."
    )


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def interval(values: list[float]) -> str:
    """Return a figure with its 95% interval."""
    value, low, high = values
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _published(published: dict[str, Any], rule: str) -> list[str]:
    if rule == "prompt-disjoint":
        return []
    rows = []
    for source, models in published.items():
        rows += [f"| {name}: {source} | | {srcc:.3f} | | {plcc:.3f} | |" for name, (srcc, plcc) in models.items()]
    return rows


def _shipped(model: dict[str, Any]) -> list[str]:
    lines = [
        "## By number and choice of exemplars",
        "",
        "The shipped model before rounding. Random choices: mean and standard deviation over 20 draws.",
        "",
        "| exemplars | validation SRCC | validation RMSE | test SRCC | test RMSE |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, sides in model["by exemplars"].items():
        cells = [_with_deviation(sides[side][metric]) for side in ("validation", "test") for metric in ("srcc", "rmse")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## By generator",
        "",
        "Within the test images of one generator and setting; PSCR, EfficientNet-Lite0, prompt-disjoint, 64 exemplars.",
        "",
        "| | images | SRCC | PLCC | mean label | mean score |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, part in model["per generator"].items():
        lines.append(
            f"| {name} | {part['images']} | {interval(part['srcc'])} | {interval(part['plcc'])} | "
            f"{part['mean label']:.2f} | {part['mean score']:.2f} |"
        )
    return [*lines, ""]


def _with_deviation(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f}" + (f" ± {value['sd']:.3f}" if value["sd"] else "")


def _fidelity(recorded: dict[str, Any]) -> list[str]:
    lines = [
        "## By precision",
        "",
        recorded["method"],
        "",
        "| | largest difference to FP32 | mean | SRCC with FP32 | SRCC with the ratings | PLCC |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in recorded["models"].items():
        if "checkpoint against fp32" in figures:
            off = figures["checkpoint against fp32"]
            lines.append(f"| {name}, PyTorch | {off['largest']:g} | {off['mean']:g} | {off['srcc']:.5f} | | |")
        for precision in ("fp32", "fp16", "int8"):
            if precision in figures:
                off, ratings = figures[precision]["against fp32"], figures[precision]["against the ratings"]
                lines.append(
                    f"| {name}, {precision} | {off['largest']:g} | {off['mean']:g} | {off['srcc']:.5f} | "
                    f"{interval(ratings['srcc'])} | {interval(ratings['plcc'])} |"
                )
    lines.append("")
    for name, figures in recorded["models"].items():
        files = figures.get("files")
        if files:
            lines += [
                f"- {kind.upper()} of the same pixels ({name}, {files['precision']}, {files[kind]['images']} images): "
                f"largest difference {files[kind]['largest difference']:g}"
                for kind in ("png", "webp")
            ]
    return [*lines, ""]


def _speed(recorded: dict[str, Any]) -> list[str]:
    lines = [
        "## Speed on two cores",
        "",
        f"{recorded['method']} {recorded['machine']['processor']}.",
        "",
        "| | images/s, median (min to max) | whole process, s |",
        "| --- | --- | --- |",
    ]
    for way, measured in recorded["ways"].items():
        rate, wall = measured["images_per_second"], measured["wall_seconds"]
        lines.append(
            f"| {way} | {rate['median']:.1f} ({rate['min']:.1f} to {rate['max']:.1f}) | {wall['median']:.1f} |"
        )
    return [*lines, ""]
