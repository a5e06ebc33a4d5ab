"""Write the model card of the shipped model from its facts and the recorded figures."""

from __future__ import annotations

import json
from typing import Any

from pscr_engine.bundle import Bundle

from .figures import RECORD
from .page import interval
from .recipes import SHIPPED


def card(facts: dict[str, Any], bundle: Bundle) -> str:
    """Return the model card, Markdown.

    Args:
        facts: the content of the model's JSON file of facts.
        bundle: the model's bundle.
    """
    recorded = json.loads(RECORD.read_text())
    model = recorded["models"][SHIPPED]
    settings = model["settings"]
    generators = sorted(model["per generator"].items(), key=lambda entry: -entry[1]["srcc"][0])
    lines = [
        f"# {facts['name']}",
        "",
        f"{facts['summary']}. A PSCR model with {bundle.exemplars.count} exemplars, in "
        f"{', '.join(bundle.info.graphs)}.",
        "",
        "## Data",
        "",
        f"{facts['data']} (arXiv 2306.04717). {facts['split']}. {len(model['left out as copies'])} images whose files "
        "are copies of validation or test images were left out of training. The images are not part of this project.",
        "",
        "## Training",
        "",
        f"{facts['trunk']}; the stem and the first two stages keep these weights, batch norms keep their statistics. "
        f"Contrastive regression, all pairs of a batch of {settings['batch_size']}, {settings['train_patches']} of the "
        f"nine overlapping patches per image and step, mirror images, AdamW at {settings['learning_rate']:g} (head: "
        f"{settings['head_learning_rate']:g}) down a cosine, {len(model['epochs'])} epochs, a moving average of the "
        f"weights ({settings['average']:g}). The epoch ({model['validation-chosen epoch']['epoch']}) was chosen by "
        "SRCC on the validation images. Weights were then rounded to 16 bits, batch norms folded.",
        "",
        f"Made again by: `{facts['rebuild']}` (in a checkout; docs/training.md).",
        "",
        "## Figures",
        "",
        "On the test images, whose prompts are not among those trained on; 95% intervals by bootstrap over images:",
        "",
        "| | SRCC | KRCC | PLCC | RMSE |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {precision} | " + " | ".join(interval(values[name]) for name in ("srcc", "krcc", "plcc", "rmse")) + " |"
            for precision, values in facts["figures"].items()
        ),
        "",
        "Within the images of one generator, where it is harder (FP32, before rounding, 64 exemplars):",
        "",
        "| generator | images | SRCC | PLCC | mean label | mean score |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {part['images']} | {interval(part['srcc'])} | {interval(part['plcc'])} | "
            f"{part['mean label']:.2f} | {part['mean score']:.2f} |"
            for name, part in generators
        ),
        "",
        "## What it is good and bad at",
        "",
        f"- It tells bad images from good ones across generators; within one generator it is weakest for "
        f"{generators[-1][0]} (SRCC {generators[-1][1]['srcc'][0]:.2f}) and best for {generators[0][0]} "
        f"({generators[0][1]['srcc'][0]:.2f}).",
        "- It was trained on 512-pixel images of six generators of 2021 to 2023. Scores of other generators, sizes and "
        "styles have not been compared with people's.",
        "- It rates technical and perceptual quality. It does not see the prompt, and says nothing about alignment, "
        "safety, or whether an image is generated.",
        "- Photographs are outside its data: their scores can be compared with each other at most.",
        "",
        "## Licence",
        "",
        f"- Data: {facts['licence']['data']}.",
        f"- Weights: {facts['licence']['weights']}.",
        "",
    ]
    return "\n".join(lines)
