"""Format a benchmark record as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STAGES = ("fetch", "decode", "sample", "infer", "sink")


def name_of(record: Mapping[str, Any]) -> str:
    """Describe a record's device, backend and precision in a few words."""
    host, engine = record["host"], record["engine"]
    device = host["gpus"].get(engine["device"], host["processor"])
    return f"{device}, {engine['backend']} {engine['precision']}"


def table(record: Mapping[str, Any]) -> str:
    """Format all figures of one record."""
    engine, runs = record["engine"], record["runs"]
    one = runs[0]["images_per_second"]["median"]
    lines = [
        f"{name_of(record)}, {record['host']['cores']} cores",
        f"{record['bundle']['backbone']}, {record['bundle']['sampling']}, {record['bundle']['exemplars']} exemplars, "
        f"batches of {engine['batch_size']}; images: {_images(record['images'])}",
        "",
        f"{'images per second':<26}{'median':>10}{'lowest':>10}{'highest':>10}",
    ]
    for name in STAGES:
        rate = record["stages_alone"][name]
        lines.append(_row(f"{name} alone", rate))
        if name == "decode":
            lines += [
                _row(f"  {kind}, {each['bytes_per_image'] / 1000:.0f} kB", each["images_per_second"])
                for kind, each in rate["by_format"].items()
            ]
    if "baseline" in engine:
        lines.append(_row("baseline: a plain loop", engine["baseline"]["images_per_second"]))
    for run in runs:
        lines.append(_row(f"whole run, {_devices(run['devices'])}", run["images_per_second"]))
    lines += ["", *_facts(record, one)]
    return "\n".join(lines)


def _facts(record: Mapping[str, Any], one: float) -> list[str]:
    engine, runs = record["engine"], record["runs"]
    arithmetic, memory = engine["arithmetic"], engine["memory"]
    lines = [
        f"the slowest stage alone is {record['slowest_stage']}; a whole run reaches "
        f"{record['share_of_slowest_stage']:.0%} of it"
    ]
    if "baseline" in engine:
        lines.append(f"{one / engine['baseline']['images_per_second']['median']:.2f} times the baseline")
    lines += [f"{len(run['devices'])} devices: scaling efficiency {run['scaling_efficiency']:.0%}" for run in runs[1:]]
    if arithmetic["share"] is None:
        lines.append(f"infer: {arithmetic['gmac_per_second']:,.0f} GMAC/s; peak {arithmetic['how']}")
    else:
        lines.append(
            f"infer: {arithmetic['gmac_per_second']:,.0f} GMAC/s, {arithmetic['share']:.0%} of the arithmetic peak of "
            f"{arithmetic['peak_gmac_per_second']:,.0f} ({arithmetic['how']})"
        )
    lines.append(
        f"infer: operators move {memory['gb_per_second']:,.1f} GB/s, {memory['share']:.0%} of the memory bandwidth of "
        f"{memory['bandwidth_gb_per_second']:,.1f}"
    )
    latency = ", ".join(f"{name} {value:,.1f}" for name, value in engine["latency_ms"].items())
    lines.append(f"one batch alone, decoding included, milliseconds: {latency}")
    joules = runs[-1]["joules_per_image"]
    lines.append("energy: this host doesn't tell" if joules is None else f"energy: {joules:.3g} J per image")
    return lines


def _row(name: str, rate: Mapping[str, float]) -> str:
    return f"{name:<26}" + "".join(f"{rate[key]:>10,.1f}" for key in ("median", "low", "high"))


def _images(facts: Mapping[str, Any]) -> str:
    size = f"{facts['bytes_per_image'] / 1000:.0f} kB"
    if "folder" in facts:
        return f"{facts['images']} of {facts['folder']}, {size} each"
    return f"made up, {facts['made up']} {facts['format']}, {size} each"


def _devices(devices: Sequence[str]) -> str:
    if len(set(devices)) == 1 and len(devices) > 1:
        return f"{len(devices)} × {devices[0]}"
    return devices[0] if len(devices) == 1 else f"{devices[0]} to {devices[-1]}"
