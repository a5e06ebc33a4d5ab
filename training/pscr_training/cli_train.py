"""The command `pscr-engine train`."""

from __future__ import annotations

from typing import Any

import click
from pscr_export.cli import BackboneName, names

from pscr_engine.cli import logs
from pscr_engine.cli.parameters import default_option, out_option
from pscr_engine.cli.step_progress import progress
from pscr_engine.host import keep_freed_memory
from pscr_engine.sampling import SAMPLINGS

SPLITS = ("paper", "random", "prompt-disjoint", "column")


def source_options(command: Any) -> Any:
    """Add the options about the data that `train` and `evaluate` have in common."""
    options = (
        click.option(
            "--dataset",
            help="agiqa-1k, agiqa-3k, aigciqa2023, synthetic, or a CSV, TSV, JSONL or Parquet file: path, mos.",
        ),
        click.option("--data", "root", help="Folder of the database, or of the table's images."),
        click.option("--label", help="Which label, or the table's column.  [default: quality, or mos]"),
        click.option("--path-column", help="The table's column of images.  [default: path]"),
        click.option("--split-column", help="The table's column that says train, test or val."),
        default_option("--images", 1000, "How many images, for --dataset synthetic."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@source_options
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    help="How images are dealt out to training and test; prompt-disjoint shares no prompt between them.  "
    "[default: column if there is --split-column, else random]",
)
@default_option("--val-share", 0.1, "Share of the training images that choose the best epoch.")
@out_option("trained", "Folder to fill.")
@default_option(
    "--backbone",
    "resnet18",
    "The trunk: one of PSCR's eight, or any of timm's, by its features after global pooling.",
    type=BackboneName(),
)
@default_option("--weights", "imagenet", "What the trunk begins with: imagenet (downloaded), none (random), or a file.")
@default_option(
    "--method",
    "contrastive",
    "no-reference is the baseline that predicts the label directly; it can't be exported.",
    type=click.Choice(["contrastive", "no-reference"]),
)
@default_option(
    "--pairs",
    "partner",
    "Compare each image with one random other, as in the paper, or with all others of its batch.",
    type=click.Choice(["partner", "all"]),
)
@default_option(
    "--sampling",
    "ops",
    "How patches are taken: ops, nine that overlap; nops, four that don't; rps, random ones; none, one of the image "
    "made smaller.",
    type=click.Choice(SAMPLINGS),
)
@click.option(
    "--train-sampling",
    type=click.Choice(SAMPLINGS),
    help="How training steps take patches: rps draws them anew anywhere in the image; validation has --sampling.  "
    "[default: --sampling]",
)
@click.option("--patch-size", type=int, help="Side of a patch in pixels.  [default: the backbone's, 224 or 299]")
@default_option("--epochs", 100, "Times that each image is seen.")
@default_option("--batch-size", 8, "Images per step; with partners, as many again.")
@default_option("--accumulate", 1, "Steps whose gradients are added up.")
@click.option(
    "--train-patches", type=int, help="Patches per image and step, drawn anew; validation has all.  [default: all]"
)
@click.option(
    "--freeze",
    default="",
    callback=names,
    help="The trunk's modules that are not trained, separated by commas (conv1,layer1, say), or all: then the images "
    "are encoded once, without mirror images.",
)
@click.option("--freeze-batch-norms", is_flag=True, help="Keep the statistics that batch norms begin with.")
@default_option(
    "--optimizer", "adam", "adamw: --weight-decay acts on the weights themselves.", type=click.Choice(["adam", "adamw"])
)
@click.option("--head-learning-rate", type=float, help="That of the regressor.  [default: --learning-rate]")
@default_option(
    "--schedule",
    "constant",
    "cosine: the learning rate falls to 0 in --epochs epochs.",
    type=click.Choice(["constant", "cosine"]),
)
@default_option("--warmup-epochs", 0.0, "Epochs in which the learning rate rises.")
@default_option(
    "--average", 0.0, "Score with a moving average of the weights, of which each step keeps this share (0.99, say)."
)
@default_option("--learning-rate", 1e-4, "1e-5 suits swin.")
@default_option("--weight-decay", 1e-5, "Added to the gradients, as Adam has it, but see --optimizer.")
@click.option("--amp", is_flag=True, help="Mixed precision: FP16 on a GPU, BF16 on a CPU.")
@default_option("--device", "auto", "cpu, cuda, cuda:1, ...")
@default_option("--workers", 0, "Processes that read images; 0 for none.")
@default_option("--cache-mb", 2000, "Memory for decoded images, kept from epoch to epoch.")
@default_option("--seed", 1, "Of weights, order, partners, flips and splits.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard's files beside log.csv.")
@click.option("--overwrite", is_flag=True, help="Throw away the training that is in --out.")
def train(
    dataset: str | None,
    root: str | None,
    label: str | None,
    path_column: str | None,
    split_column: str | None,
    images: int,
    split: str | None,
    seed: int,
    **settings: Any,
) -> None:
    """Train a PSCR model on labelled images.

    Writes OUT/last.pt and OUT/best.pt after each epoch (best by SRCC on validation images, never on
    the test's) and OUT/log.csv. After a crash the same command goes on, to the same result; so does
    a larger --epochs. Then: pscr-engine evaluate OUT/best.pt, pscr-engine export --ckpt OUT/best.pt.

    \b
    Examples:
      pscr-engine train --dataset agiqa-3k --data AGIQA-3K --split prompt-disjoint
      pscr-engine train --dataset labels.csv --backbone resnet50 --amp --workers 8
      pscr-engine train --dataset synthetic --weights none --patch-size 64 --epochs 5
    """
    if dataset is None:
        raise click.UsageError("name labelled images with --dataset")
    logs.configure(as_json=False)
    keep_freed_memory(even_large=True)
    from .config import TrainConfig
    from .data.open import Source
    from .train import train as run

    source = Source(dataset, root, label, split_column, images, seed, path_column)
    chosen = split or ("column" if split_column else "random")
    config = TrainConfig(source, split=chosen, seed=seed, **settings)
    with progress("images") as report:
        result = run(config, report)
    best = max(result.history, key=lambda entry: entry["val_srcc"])
    click.echo(f"best epoch: {best['epoch'] + 1:.0f}, validation SRCC {best['val_srcc']:.4f} ({result.best})")
    click.echo(f"next:       pscr-engine evaluate {result.best}")
    if config.method == "contrastive":
        click.echo(f"            pscr-engine export --ckpt {result.best}")
