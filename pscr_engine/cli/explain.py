"""The command `pscr-engine explain`: show where an image's score comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from . import logs
from .parameters import bundle_option, default_option, image_limits, out_option, precision_option

if TYPE_CHECKING:
    from ..explain import Explanation


@click.command()
@click.argument("images", nargs=-1, required=True)
@bundle_option()
@out_option("explain.html", "A page, .html, or a picture, .png.")
@default_option("--nearest", 5, "How many exemplars to show.", type=click.IntRange(0, 100))
@click.option(
    "--exemplar-root",
    type=click.Path(path_type=Path),
    help="Folder with the exemplars' own images, which a bundle lacks.  [default: this folder]",
)
@default_option("--device", "auto", "What computes it.", metavar="auto|cpu|cuda:N")
@precision_option("As for score.")
@image_limits("refused")
def explain(
    images: tuple[str, ...],
    bundle: str | None,
    out: Path,
    nearest: int,
    exemplar_root: Path | None,
    device: str,
    precision: str,
    small_images: Literal["upscale", "error"],
    max_pixels: int,
) -> None:
    """Show where an image's score comes from: its patches, and the exemplars nearest to it.

    For each of IMAGES: the image with the outlines of its patches, the score of each patch by itself (the
    head applied to that patch's own feature), and the exemplars whose features are at the smallest Euclidean
    distance, with their labels and deltas (predicted difference, image minus exemplar).

    \b
    Examples:
      pscr-engine explain cat.png
      pscr-engine explain cat.png dog.jpg --exemplar-root labelled/ --out both.png
    """
    logs.configure(as_json=False)
    from ..errors import ImageError, UsageError
    from ..explain.save import check_output, save
    from ..explain.wording import heading, printable, score_format
    from ..scorer import Scorer

    check_output(out)
    if exemplar_root is not None and not exemplar_root.is_dir():
        raise UsageError(f"--exemplar-root {exemplar_root}: no such folder")
    lines, failed = [], []

    def explained(scorer: Scorer) -> Iterator[Explanation]:
        for image in images:
            try:
                found = scorer.explain(image, nearest=nearest, small_images=small_images, max_pixels=max_pixels)
            except ImageError as error:
                failed.append(error)
                logs.error(printable(str(error)))
            else:
                lines.append(f"{printable(found.name)}: {heading(found, score_format(found.bundle))}")
                yield found

    with Scorer.open(bundle, device=device, precision=precision) as scorer:
        save(explained(scorer), out, exemplar_root)
    if lines:
        logs.result("\n".join([*lines, f"explained in {out}"]))
    if failed:
        raise click.exceptions.Exit(1)
