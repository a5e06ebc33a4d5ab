"""The command `pscr-engine export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pscr_engine.cli.parameters import default_option, number_option, out_option
from pscr_engine.cli.step_progress import progress
from pscr_engine.errors import MissingDependencyError
from pscr_engine.sampling import SAMPLINGS

# Names only: PyTorch is imported when an export begins, not for --help.
BACKBONE_NAMES = ("resnet18", "resnet50", "vgg16", "vgg19", "inceptionv4", "vit", "swin", "mae")


class BackboneName(click.ParamType):  # type: ignore[type-arg]
    """The type of an option that names a trunk: one of the eight, an extra word, or timm:NAME.

    Args:
        words: extra words to accept, "auto" for example.
    """

    name = "backbone"

    def __init__(self, *words: str) -> None:
        self._choices = (*words, *BACKBONE_NAMES)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the choices as `--help` shows them."""
        return f"[{'|'.join(self._choices)}|timm:NAME]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or refuse one that can't be a trunk's; whether timm has it is checked later."""
        name = str(value)
        if name in self._choices or (name.startswith("timm:") and name != "timm:"):
            return name
        self.fail(f"{name!r}: choose from {', '.join(self._choices)}, or timm:NAME for any of timm's", param, ctx)


def names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Split a list separated by commas into its names, each once."""
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


@click.command()
@click.option(
    "--ckpt",
    "checkpoint",
    required=True,
    type=click.Path(path_type=Path),
    help="Checkpoint of the PSCR authors' format, best_model.pt for example.",
)
@click.option(
    "--exemplars",
    type=click.Path(path_type=Path),
    help="CSV, JSONL or Parquet list of labelled images, with columns path and mos.  [default: the images that the "
    "checkpoint was trained on, if pscr-engine trained it]",
)
@click.option(
    "--exemplar-root",
    type=click.Path(path_type=Path),
    help="Where the images that the checkpoint was trained on are now.",
)
@out_option("model.pscr", "The bundle to make.")
@default_option("--backbone", "auto", "The trunk; auto recognises it.", type=BackboneName("auto"))
@default_option(
    "--sampling",
    "auto",
    "How patches are taken; auto: as in training if the checkpoint says so, else ops.",
    type=click.Choice(["auto", *SAMPLINGS]),
)
@default_option(
    "--precision",
    "fp32",
    "Graphs to make, of fp32, fp16 (for GPUs) and int8 (for CPUs), separated by commas.",
    name="precisions",
    callback=names,
)
@click.option(
    "--calibration", help="More images to check parity on, and to calibrate int8 with: any manifest, directory or glob."
)
@number_option("--num-exemplars", "all", help="How many exemplars to keep.")
@default_option(
    "--select",
    "stratified",
    "Which ones: spread evenly over the labels' order, or random.",
    type=click.Choice(["stratified", "random"]),
)
@default_option("--label-column", "mos", "The exemplar list's column of labels.")
@click.option(
    "--label-range",
    nargs=2,
    type=float,
    help="Smallest and largest label.  [default: those of the exemplars]",
)
@click.option("--opset", type=int, help="ONNX opset, 18 to 23.  [default: the exporter's]")
@default_option("--seed", 0, "For --sampling rps and --select random.", type=click.IntRange(0, 2**63 - 1))
@click.option(
    "--accept-parity",
    default="",
    callback=names,
    help="Precisions to keep even if their scores differ too much from PyTorch's.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def export(**settings: Any) -> None:
    """Turn a PSCR checkpoint into a bundle that scores images.

    Scoring then needs no PyTorch. Every exemplar is encoded once; each graph's scores are compared
    with PyTorch's, and the bundle appears only if they agree. Nothing in the checkpoint is executed.

    \b
    Examples:
      pscr-engine export --ckpt trained/best.pt
      pscr-engine export --ckpt best_model.pt --exemplars exemplars.csv
      pscr-engine export --ckpt best_model.pt --exemplars train.csv --num-exemplars 100 --precision fp32,fp16
    """
    try:
        import onnxruntime  # noqa: F401 - needed at the end of the work: say so at its beginning
    except ImportError:
        raise MissingDependencyError("onnxruntime", "checking the exported graph", "cpu,export") from None
    from .export import ExportConfig, export_bundle

    settings["accept_parity"] = frozenset(settings["accept_parity"])
    config = ExportConfig(**settings)
    with progress("images") as report:
        bundle = export_bundle(config, report)
    click.echo(f"bundle: {bundle.path} ({bundle.info.backbone}, {bundle.exemplars.count} exemplars)")
    click.echo(f"next:   pscr-engine score --bundle {bundle.path} --manifest images.parquet")
