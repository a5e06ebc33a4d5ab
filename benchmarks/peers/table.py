"""Make the tables of peers in docs/speed.md and the README from the records that they name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common import ROOT
from ..marked import put

README = ROOT / "README.md"
PAGE = ROOT / "docs" / "speed.md"
END = "<!-- /peers -->"
# pscr-engine in INT8: `auto` takes the faster one.
OURS = ("pscr-engine int8", "pscr-engine int8, openvino")
# The README's rows: pscr-engine, the same network by PyTorch as one writes it who knows how, and the fastest peer.
CHIEF = (*OURS, "b: tuned", "c: openvino int8")


def begin(file: Path) -> str:
    """Return the mark before a record's table."""
    return f"<!-- peers of {file.stem}: made by python -m benchmarks.peers -->"


def write_tables(file: Path) -> None:
    """Put the table of a record where docs/speed.md has its mark, and its chief rows where the README has."""
    record = json.loads(file.read_text())
    for page, only in ((PAGE, None), (README, CHIEF)):
        if begin(file) in page.read_text(encoding="utf-8"):
            put(page, begin(file), END, table(record, only))


def table(record: dict[str, Any], only: Sequence[str] | None = None) -> str:
    """Render images per second by backbone, and how many times as fast pscr-engine's INT8 is on its faster engine."""
    backbones = record["backbones"]
    names = list(dict.fromkeys(name for figures in backbones.values() for name in figures["peers"]))
    names = [name for name in names if only is None or name in only]
    head = "".join(f" {backbone} | our INT8 against it |" for backbone in backbones)
    lines = [f"| images per second |{head}", f"| --- |{' --- | --- |' * len(backbones)}"]
    for name in names:
        about = next(each["peers"][name]["about"] for each in backbones.values() if name in each["peers"])
        cells = "".join(_cells(figures["peers"], name) for figures in backbones.values())
        lines.append(f"| {about} |{cells}")
    return "\n".join(lines)


def _cells(peers: dict[str, Any], name: str) -> str:
    peer = peers.get(name)
    if peer is None:
        return " - | - |"
    faster = max((ours for ours in OURS if ours in peers), key=lambda ours: _rate(peers[ours]))
    ratio = peer.get(f"{faster} is times as fast")
    return f" {_short(_rate(peer))} | {_short(ratio['median']) + '×' if ratio else ''} |"


def _rate(peer: dict[str, Any]) -> float:
    return float(peer["images_per_second"]["median"])


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
