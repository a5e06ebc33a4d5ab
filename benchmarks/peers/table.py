"""Make the README's table of peers from a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..common import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- peers: made by python -m benchmarks.peers -->", "<!-- /peers -->"


def write_tables(file: Path) -> None:
    """Put the table of a record between the marks in the README."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n\n{table(json.loads(file.read_text()))}\n\n{END}{after}", encoding="utf-8")


def table(record: dict[str, Any]) -> str:
    """Render images per second by backbone, and how many times as fast pscr-engine's INT8 is, as Markdown."""
    backbones = record["backbones"]
    names = list(dict.fromkeys(name for figures in backbones.values() for name in figures["peers"]))
    head = "".join(f" {backbone} | INT8 is |" for backbone in backbones)
    lines = [f"| images per second |{head}", f"| --- |{' --- | --- |' * len(backbones)}"]
    for name in names:
        about = next(each["peers"][name]["about"] for each in backbones.values() if name in each["peers"])
        cells = "".join(_cells(figures["peers"].get(name)) for figures in backbones.values())
        lines.append(f"| {about} |{cells}")
    return "\n".join(lines)


def _cells(peer: dict[str, Any] | None) -> str:
    if peer is None:
        return " - | - |"
    ratio = peer.get("pscr-engine int8 is times as fast")
    times = f"{_short(ratio['median'])}×" if ratio else ""
    return f" {_short(peer['images_per_second']['median'])} | {times} |"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
