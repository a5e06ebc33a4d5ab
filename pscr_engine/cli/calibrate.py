"""The command `pscr-engine calibrate`: let a bundle score by some of the patches."""

from __future__ import annotations

from pathlib import Path

import click

from . import logs
from .parameters import bundle_option, default_option, out_option


@click.command()
@click.argument("images", metavar="IMAGES")
@bundle_option()
@out_option("calibrated.pscr", "The bundle to make.")
@default_option("--images", 2000, "How many images to take, at random.", name="count", type=click.IntRange(25))
@default_option("--seed", 0, "Of the draw.", type=click.IntRange(0))
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def calibrate(images: str, bundle: str | None, out: Path, count: int, seed: int, overwrite: bool) -> None:
    """Measure how much some of an image's patches tell, for score --keep-above and --patches.

    IMAGES is a manifest, directory or glob, of images like those to be scored; they need no labels. A copy of the
    bundle is made that has the calibration: the order in which patches tell most, and each image's score by its
    first 1, 2, ... patches. A risk of 0.5% takes some 700 images, 1% some 375.

    \b
    Examples:
      pscr-engine calibrate images.parquet --out calibrated.pscr
      pscr-engine score images.parquet --bundle calibrated.pscr --keep-above 3.2
    """
    logs.configure(as_json=False)
    from ..calibration import calibrate as measure
    from ..calibration import with_calibration
    from ..calibration.calibrate import check_output
    from ..manifests import ManifestOptions, open_manifest
    from ..models import choose_bundle
    from .inspect import describe_calibration as describe
    from .step_progress import progress

    choice = choose_bundle(bundle)
    opened = choice.open()
    choice.log()
    check_output(out, overwrite=overwrite)
    with progress("images") as report:
        manifest = open_manifest(images, ManifestOptions())
        found, unread = measure(opened, manifest, images=count, seed=seed, progress=report)
    made = with_calibration(opened, found, out, overwrite=overwrite)
    facts = found.facts()
    lines = []
    for precision, rows in facts["by_patches"].items():
        lines.append(f"{precision}, by patches: difference from the plain score (root mean square), rank correlation")
        lines += [
            f"  {row['patches']:>2}  {row['rms_difference']:.4f}  {row['srcc']:.4f}"
            for row in rows
            if row["srcc"] is not None
        ]
    lines.append(f"calibrated: {describe(found)}" + (f"; {unread} images could not be used" if unread else ""))
    logs.result("\n".join([*lines, f"bundle: {made.path}"]))
