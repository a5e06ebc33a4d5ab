"""Compare benchmark records of several hosts, or of several settings on one host, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .measure import FORMAT, FORMAT_VERSION
from .table import STAGES, name_of

Record = Mapping[str, Any]

_MUST_AGREE = {
    "bundle": ("backbone", "sampling", "patch_size", "exemplars"),
    "images": ("made up", "format", "quality", "folder", "bytes_per_image"),
}


def read(path: Path) -> dict[str, Any]:
    """Read a record that `pscr-engine bench` wrote.

    Raises:
        UsageError: the file can't be read, or is not such a record.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError("not a record of pscr-engine bench")
        if value.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"format {value.get('format_version')!r}, this version reads {FORMAT_VERSION}")
        table([value], [path.name])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: {error}; measure again with pscr-engine bench --out {path}") from error
    return value


def differences(records: Sequence[Record]) -> list[str]:
    """List what makes the rates of these records hard to compare, a line each."""
    out = []
    for part, names in _MUST_AGREE.items():
        for name in names:
            values = [record[part].get(name) for record in records]
            if any(value != values[0] for value in values):
                out.append(f"{part} differ in {name}: {', '.join(map(str, values))}")
    return out


def rows(records: Sequence[Record]) -> list[tuple[str, list[float | None], str]]:
    """List the figures to compare: name, a value per record (None where it has no such figure), and format."""
    out: list[tuple[str, list[float | None], str]] = []

    def add(name: str, form: str, *keys: str | int) -> None:
        out.append((name, [_at(record, *keys) for record in records], form))

    rate = ("images_per_second", "median")
    for stage in STAGES:
        add(f"{stage} alone, images/s", ",.1f", "stages_alone", stage, "median")
    add("plain loop, images/s", ",.1f", "engine", "baseline", *rate)
    add("one device, images/s", ",.1f", "runs", 0, *rate)
    if any(len(record["runs"]) > 1 for record in records):
        add("all devices, images/s", ",.1f", "runs", -1, *rate)
        out.append(("devices", [len(record["runs"][-1]["devices"]) for record in records], ",d"))
        add("scaling efficiency", ".0%", "runs", -1, "scaling_efficiency")
    add("share of arithmetic peak", ".0%", "engine", "arithmetic", "share")
    add("share of bandwidth", ".0%", "engine", "memory", "share")
    for percentile in ("p50", "p99"):
        add(f"batch, {percentile}, ms", ",.1f", "engine", "latency_ms", percentile)
    add("batch size", ",d", "engine", "batch_size")
    add("J per image", ".3g", "runs", -1, "joules_per_image")
    return out


def table(records: Sequence[Record], names: Sequence[str]) -> str:
    """Format a table with one column per record and, where there are two, their ratio."""
    head = [
        f"{letter}: {name} ({name_of(record)})"
        for letter, name, record in zip(_letters(), names, records, strict=False)
    ]
    pair = len(records) == 2
    titles = [*list(_letters())[: len(records)], *(["B / A"] if pair else [])]
    lines = [*head, "", f"{'':<26}" + "".join(f"{title:>12}" for title in titles)]
    for name, values, form in rows(records):
        cells = ["-" if value is None else format(value, form) for value in values]
        if pair:
            first, second = values
            cells.append(f"{second / first:.2f}" if first and second is not None else "-")
        lines.append(f"{name:<26}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def _letters() -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _at(value: Any, *keys: str | int) -> Any:
    """Look up a nested value; None if it is missing: GPUs have no baseline, and few hosts report their energy."""
    for key in keys:
        try:
            value = value[key]
        except (LookupError, TypeError):
            return None
    return value
