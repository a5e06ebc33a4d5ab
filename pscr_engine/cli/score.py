"""The command `pscr-engine score`: score a manifest."""

from __future__ import annotations

import io
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any

import click

from ..backends.registry import BACKENDS
from ..config import RayOptions, ScoreConfig
from ..host import freeze_gc, keep_freed_memory
from ..manifests import ManifestOptions
from ..output.processes import Share, count_processes, totals
from ..output.shard import WHOLE, Shard
from ..stages.base import DEFAULT_VERIFIED_SHARE
from . import logs
from .parameters import (
    bundle_option,
    default_option,
    image_limits,
    number_option,
    precision_option,
    to_place,
    to_places,
)
from .score_progress import run_progress


@click.command()
@click.argument("named", nargs=-1, metavar="[MANIFEST]")
@click.option(
    "--manifest",
    "-m",
    help="Parquet, CSV, TSV, JSONL, .txt (paths) or WebDataset tar file; directory; quoted glob; or image. Here, or on "
    "s3://, gs:// or az://.",
)
@bundle_option(
    "What pscr-engine export made. One in an object store is kept in this user's cache.",
    several="Several score each image in one pass, into score_COLUMN and so on; COLUMN is the file's name by default.",
)
@default_option(
    "--out",
    "scores",
    "Folder for the results, or a prefix in an object store.",
    short="-o",
    metavar="PATH|URI",
    callback=to_place,
)
@click.option("--path-column", help="Column with paths, bytes or {bytes, path} structs.  [default: path, or image]")
@click.option("--id-column", help="Column copied to the results as 'id'.  [default: id, if there is one]")
@click.option("--root", help="Folder that relative paths start from and may not leave.  [default: the manifest's]")
@default_option(
    "--devices",
    "auto",
    "One worker process per device in the list; auto: every GPU, or else the CPU.",
    metavar="auto|all|cpu|cuda:N[,...]",
)
@default_option(
    "--backend",
    "auto",
    "auto: on a GPU TensorRT, if the bundle has a plan that fits (see compile); on a CPU with OpenVINO installed, the "
    "faster engine, which is measured once, before a long run.",
    type=click.Choice(["auto", *BACKENDS]),
)
@precision_option(
    "auto: on a GPU fp16, if the bundle has it; on a CPU with VNNI int8, if the bundle has it and it passed "
    "its check, else bf16 with OpenVINO on a CPU that has it, else fp32.",
    "bf16",
)
@number_option(
    "--batch-size",
    "auto",
    help="Images per batch. auto: on a GPU, before a long run, the best one is found and remembered.",
)
@number_option("--chunk-rows", "auto", help="Manifest rows per part file: what a crash can cost.")
@default_option(
    "--runner",
    "local",
    "ray: on the nodes of a Ray cluster, which must see the same files. Either goes on with what the other began.",
    type=click.Choice(["local", "ray"]),
)
@default_option(
    "--ray-address",
    "auto",
    "auto: the cluster of RAY_ADDRESS, or this host's; local: one for this run, on this host.",
    metavar="auto|HOST:PORT|local",
)
@number_option("--workers", "auto", help="With ray. auto: as many as fit into the cluster, also when nodes join it.")
@number_option(
    "--cpus-per-worker", "auto", help="With ray. auto: the cores of the smallest node, shared among its GPUs."
)
@number_option("--gpus-per-worker", "auto", help="With ray: 0 or 1. auto: 1, if the cluster has GPUs.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Score only the I-th of N shares, counted from 0; N processes, each with its own, share one --out.",
)
@click.option("--allow-http", is_flag=True, help="Fetch images that are listed as http:// or https:// URLs, too.")
@click.option(
    "--allow-private-addresses",
    is_flag=True,
    help="With --allow-http: also from private, loopback and other special addresses.",
)
@click.option("--features", is_flag=True, help="Write each image's features, too.")
@image_limits("'too_large'")
@default_option(
    "--verify-decoding",
    DEFAULT_VERIFIED_SHARE,
    "Share of the images decoded on a GPU that Pillow decodes, too, to compare, after the first 16; 0 for none.",
    metavar="SHARE",
)
@click.option("--overwrite", is_flag=True, help="Throw away what an earlier run left in --out.")
@click.option("--retry-failed", is_flag=True, help="Score again the rows of a complete run that are not ok.")
@click.option(
    "--known",
    multiple=True,
    metavar="PATH|URI",
    callback=to_places,
    help="Results of an earlier run: images that it has scored are not scored again. May be given several times.",
)
@default_option(
    "--known-by",
    "path",
    "What an image is known by: path, with its file's size and time or its ETag; id; or content, whose digests are "
    "written, too.",
    type=click.Choice(["path", "id", "content"]),
)
@click.option("--known-failed", is_flag=True, help="With --known: take over failed rows, too.")
@click.option(
    "--once-per-content",
    is_flag=True,
    help="Score images with the same bytes once; their rows are equal. Each worker knows those it has read.",
)
@click.option(
    "--keep-above",
    type=float,
    metavar="SCORE",
    help="Decide whether each image has at least this score, by as few patches as that takes: columns decision, "
    "patches_used, score_low, score_high. Needs a calibrated bundle.",
)
@click.option(
    "--keep-top",
    type=float,
    metavar="SHARE",
    help="The same with the score that this share of a sample of the images has, 0.1 for the best tenth.",
)
@click.option(
    "--risk", type=float, help="Share of these decisions that may differ from those by all patches.  [default: 0.005]"
)
@click.option(
    "--patches", type=int, metavar="K", help="Score by the K patches that tell most. Needs a calibrated bundle."
)
@click.option(
    "--max-failure-rate",
    type=float,
    help="Exit with 3 if a larger share of rows fails.  [default: if all do; 1 accepts even that]",
)
@default_option("--log-format", "text", "Of progress and messages, on stderr.", type=click.Choice(["text", "json"]))
@click.option(
    "--metrics-file",
    metavar="PATH",
    help="File for metrics in OpenMetrics text: written every few seconds, and left at the end.",
)
@click.option(
    "--metrics-port",
    type=int,
    metavar="PORT",
    help="Port where Prometheus can scrape metrics during the run; 0: any that is free, which the log names.",
)
@default_option("--metrics-host", "127.0.0.1", "Address of this host that the port is on; 0.0.0.0: all of them.")
def score(
    path_column: str | None,
    id_column: str | None,
    root: str | None,
    named: tuple[str, ...],
    manifest: str | None,
    log_format: str,
    shard: str | None,
    allow_http: bool,
    allow_private_addresses: bool,
    ray_address: str,
    workers: int | None,
    cpus_per_worker: int | None,
    gpus_per_worker: int | None,
    bundle: tuple[str, ...],
    **settings: Any,
) -> None:
    """Score the images of a manifest.

    MANIFEST is the list of images; it may be given as --manifest, too.
    Writes one row per manifest row to OUT/part-*.parquet: row, id, path, score, score_std, status,
    error, width, height, stamp. A bad image is a row with a status, not an error. After a crash, give the
    same command again: it goes on with what is missing. OUT/_SUCCESS is there when all is done.
    With several --bundle, columns score_NAME and score_std_NAME of each take the place of score and score_std.

    \b
    Examples:
      pscr-engine score images.parquet
      pscr-engine score photos/ --out photo-scores
      pscr-engine score --manifest 'batch-*/**/*.png' --bundle agiqa3k-lite0
      pscr-engine score images.parquet --bundle quality.pscr --bundle taste=runs/7/model.pscr
      pscr-engine score --manifest s3://data/images.parquet --out s3://data/scores
      pscr-engine score more.parquet --known scores --out more-scores
      pscr-engine score --manifest images.parquet --shard $SLURM_ARRAY_TASK_ID/16
      pscr-engine score --manifest images.parquet --runner ray --cpus-per-worker 4
    """
    as_json = log_format == "json"
    logs.configure(as_json=as_json)
    columns = ManifestOptions(path_column, id_column, root, allow_http, allow_private_addresses)
    ray = RayOptions(ray_address, workers, cpus_per_worker, gpus_per_worker)
    part = WHOLE if shard is None else Shard.parse(shard)
    config = ScoreConfig(_manifest(named, manifest), bundle or None, columns=columns, shard=part, ray=ray, **settings)
    warnings.filterwarnings("ignore", module="PIL")
    keep_freed_memory()
    from ..scorer import Scorer

    freeze_gc()
    try:
        # Ray writes what it hears of deaths to stdout, raylets' logs included; what matters of it is logged.
        quiet = redirect_stdout(io.StringIO()) if config.runner == "ray" else nullcontext()
        with run_progress(as_json=as_json) as report, quiet:
            result = Scorer.score_manifest(config, report)
    except KeyboardInterrupt:
        hint = " without --overwrite" if config.overwrite else ""
        logs.error(f"interrupted; give the same command again{hint} to go on", prefix="")
        raise click.exceptions.Exit(130) from None
    counts = ", ".join(f"{count} {status}" for status, count in result.status.items()) or "nothing to score"
    speed = f" in {result.seconds:.1f} s ({result.scored / result.seconds:.1f} images/s)" if result.scored else ""
    if result.complete:
        if speed and result.scored != result.rows:
            speed = f"\nthis process: {result.scored} images{speed}; {_all_processes(result.processes)}"
        taken = f"\ntaken over from earlier runs: {result.taken_over} rows" if config.known else ""
        taken += _decisions(result.decisions)
        logs.result(f"{result.rows} rows: {counts}{speed}{taken}\nscores: {result.out}/part-*.parquet")
        if not as_json and sys.stdout is not None and sys.stdout.isatty():
            out = shlex.quote(str(result.out))
            logs.result(f"next:   pscr-engine report {out}\n        pscr-engine select {out} --top 10%")
    else:
        logs.result(
            f"shard {result.shard}: {result.rows} rows: {counts}{speed}\n"
            f"this shard is done, the run is not complete yet: {result.parts} parts are in {result.out}"
        )


def _decisions(decisions: Mapping[str, Any] | None) -> str:
    """Say how many images are kept, and by how many patches that was decided."""
    if not decisions or not (images := decisions["keep"] + decisions["drop"]):
        return ""
    return (
        f"\nkept: {decisions['keep']} of {images} ({decisions['keep'] / images:.1%}), by "
        f"{decisions['patches_per_image']:.1f} patches per image"
    )


def _all_processes(shares: Sequence[Share]) -> str:
    """Say what all processes did that worked on a run; one that was killed at once may have left no record."""
    number, sums = count_processes(shares), totals(shares)
    who = "1 process is" if number == 1 else f"{number} processes are"
    return f"{who} on record, with {sums['images']} images in {sums['seconds']:.1f} s"


def _manifest(named: tuple[str, ...], option: str | None) -> str:
    """Return the one manifest that is named, as an argument or as an option."""
    if option is not None and named:
        raise click.UsageError(f"two manifests are named, {named[0]} and --manifest {option}: name one")
    if option is not None:
        return option
    if not named:
        raise click.UsageError("name the images to score: pscr-engine score images.parquet, or a folder")
    if len(named) > 1:
        raise click.UsageError(
            f"{len(named)} manifests are named, {named[0]}, {named[1]}{', …' if named[2:] else ''}: name one; a glob "
            "in quotes, 'photos/*.png', is one"
        )
    return named[0]
