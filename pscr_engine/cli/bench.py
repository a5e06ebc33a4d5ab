"""The command `pscr-engine bench`: measure a bundle's speed, or put records of it side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from ..atomic import atomic_file, check_output_file
from ..backends.registry import BACKENDS
from ..bench.images import FORMATS
from ..errors import OutputError, UsageError
from ..host import keep_freed_memory
from . import logs
from .parameters import bundle_option, default_option, number_option, out_option, precision_option


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size: write width and height, as in 512x512")
    return int(match[1]), int(match[2])


@click.group(invoke_without_command=True)
@bundle_option()
@click.option("--images", type=click.Path(path_type=Path), help="Folder of images to score, instead of made-up ones.")
@default_option("--size", "512x512", "Of made-up images, in pixels.", callback=_size)
@default_option("--format", "jpeg", "Of made-up images.", name="kind", type=click.Choice(list(FORMATS)))
@default_option("--quality", 90, "Of made-up JPEG and WebP images.")
@default_option("--devices", "auto", "As for score; several are measured as one, two, … of them.")
@default_option("--backend", "auto", "The engine, as for score.", type=click.Choice(["auto", *BACKENDS]))
@precision_option("As for score.", "bf16")
@number_option("--batch-size", "auto", help="Images per batch, as for score.")
@default_option(
    "--seconds", 2.0, "About how long each figure is measured, per round; whole runs take five times as long."
)
@default_option("--rounds", 3, "How often each figure is measured: the median counts.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder for the scores of the runs.  [default: the system's temporary folder]",
)
@out_option("bench.json", "The record; a chart is put beside it, as .svg.")
@click.pass_context
def bench(context: click.Context, /, out: Path, **settings: Any) -> None:
    """Measure a bundle's speed on this host, stage by stage.

    Each stage by itself, whole runs from files to Parquet on one device and on several, shares of the processor's or
    GPU's arithmetic peak and memory bandwidth (measured, too), the latency of one batch, energy where the hardware
    tells, and the same work in a plain loop as the baseline. A minute or two.

    \b
    Examples:
      pscr-engine bench --bundle model.pscr
      pscr-engine bench --devices cuda:0,cuda:1 --out two-gpus.json
      pscr-engine bench compare laptop.json server.json
    """
    if context.invoked_subcommand is not None:
        return
    from ..bench import chart, table
    from ..bench.measure import BenchConfig
    from ..bench.measure import bench as measured

    _writable(out)
    keep_freed_memory()
    record = measured(BenchConfig(**settings), lambda step, done, total: logs.say(f"measuring: {step}"))
    _write(out, json.dumps(record, indent=2) + "\n")
    _write(out.with_suffix(".svg"), chart.one(record))
    logs.result(f"{table.table(record)}\n\n{out}, {out.with_suffix('.svg')}")


@bench.command()
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Chart of the comparison, as .svg.")
def compare(records: tuple[Path, ...], out: Path | None) -> None:
    """Put records of bench side by side.

    RECORDS are files that pscr-engine bench wrote, on several hosts or with several settings.
    """
    from ..bench import chart
    from ..bench import compare as side_by_side

    if not 2 <= len(records) <= 26:
        raise UsageError(f"bench compare: {len(records)} records; name 2 to 26 of them")
    read = [side_by_side.read(path) for path in records]
    names = [str(path) for path in records]
    for difference in side_by_side.differences(read):
        logs.say(f"warning: {difference}")
    if out is not None:
        _write(out, chart.several(read, names))
    logs.result(side_by_side.table(read, names) + (f"\n\n{out}" if out else ""))


def _writable(out: Path) -> None:
    """Refuse before minutes are spent."""
    if out.suffix == ".svg":
        raise UsageError(f"--out {out}: that is the chart's name; name the record, as in {out.with_suffix('.json')}")
    check_output_file(out, "record")


def _write(path: Path, text: str) -> None:
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror}); choose another --out") from error
