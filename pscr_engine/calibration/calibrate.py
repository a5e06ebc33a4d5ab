"""Measure scores by some of the patches on images, and put them into a copy of the bundle."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_directory
from ..backends.patchwise import PatchwiseEngine
from ..bundle import MANIFEST_NAME, PATCH_SCORES, Bundle, PatchScores, write_contents
from ..errors import ManifestError, OutputError, UsageError, option
from ..manifests import Manifest
from ..progress import Progress, silent
from ..records import Pixels, Query
from ..sampling import Sampling, TooSmallError
from ..stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions
from ..stages.load import load_image
from ..stages.pillow import pillow_for_a_run

CALIBRATED = ("fp32", "int8")
"""The precisions that processors compute well."""
_FEWEST = 20
# The order of patches is found on some of the images, limits on the others, which so know nothing of that choice.
_ORDER_SHARE, _MOST_FOR_ORDER = 5, 100


def calibrate(
    bundle: Bundle,
    manifest: Manifest,
    *,
    images: int = 2000,
    precisions: Sequence[str] = CALIBRATED,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[PatchScores, int]:
    """Score images by their first 1, 2, ... D patches, in the order that tells most of the whole.

    No labels are needed: scores by all patches are what the others are compared with.

    Args:
        bundle: what scores.
        manifest: images like those to be scored.
        images: how many of them to take, drawn at random.
        precisions: those of the bundle's precisions to calibrate.
        seed: of the draw.
        progress: told of each image.

    Returns:
        The calibration, and how many images could not be read.

    Raises:
        UsageError: the bundle's images have a single patch, or it has none of the precisions.
        ManifestError: there are too few images.
    """
    sampling = bundle.info.sampling
    if sampling.patches < 2:
        raise UsageError(f"{bundle.shown}: its images have a single patch, so there is nothing to decide early")
    wanted = [name for name in precisions if name in bundle.info.graphs]
    if not wanted:
        raise UsageError(f"{bundle.shown}: has none of the precisions {', '.join(precisions)}")
    drawn = draw(manifest.reader().read(range(2**62)), images, seed)
    options = DecodeOptions.for_sampling(sampling, DEFAULT_MAX_PIXELS, "upscale")
    engines = {name: PatchwiseEngine.open(bundle, name) for name in wanted}
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in wanted}
    first = min(_MOST_FOR_ORDER, len(drawn) // _ORDER_SHARE)
    order: tuple[int, ...] | None = None
    features: list[NDArray[np.float32]] = []
    unread = 0
    with pillow_for_a_run():
        for number, query in enumerate(drawn, 1):
            patches = _patches(query, sampling, options)
            query.data = query.pixels = None
            if patches is None:
                unread += 1
            elif len(features) < first:
                features.append(engines[wanted[0]].features(patches))
            else:
                order = order or _order(engines[wanted[0]], features, sampling)
                for name, engine in engines.items():
                    found[name].append(prefix_scores(engine, engine.features(patches), order))
            progress("calibrate", number, len(drawn))
    usable = len(found[wanted[0]])
    if order is None or usable < _FEWEST:
        raise ManifestError(
            f"only {len(drawn) - unread} of {len(drawn)} images can be used, which is too few to calibrate on: "
            "name some hundred, like those to be scored"
        )
    return PatchScores(order, {name: np.stack(rows) for name, rows in found.items()}), unread


def with_calibration(bundle: Bundle, calibration: PatchScores, out: Path, *, overwrite: bool = False) -> Bundle:
    """Copy a bundle to `out`, with a calibration in place of the one that it may have.

    Raises:
        OutputError: there is something at `out` that may not be replaced, or it can't be written.
    """
    check_output(out, overwrite=overwrite)
    own = [bundle.path / name for name in bundle.files if name not in (MANIFEST_NAME, PATCH_SCORES)]
    try:
        with atomic_directory(out) as folder:
            for file in own:
                (folder / file.relative_to(bundle.path)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / file.relative_to(bundle.path))
            calibration.write(folder)
            write_contents(folder, replace(bundle.info, patch_scores=calibration.facts()), bundle.exemplars)
    except OSError as error:
        raise OutputError(
            f"{out}: can't be written ({error.strerror or error}); choose another {option('--out')}"
        ) from error
    return Bundle.open(out)


def check_output(out: Path, *, overwrite: bool) -> None:
    """Raise OutputError if a bundle may not be made at `out`."""
    there = (out / MANIFEST_NAME).is_file()
    if there and not overwrite:
        raise OutputError(
            f"{out}: there is a bundle already; choose another {option('--out')} or use {option('--overwrite', True)}"
        )
    if out.exists() and not there:
        raise OutputError(f"{out}: there is something that is not a bundle; choose another {option('--out')}")


def draw(queries: Iterable[Query], count: int, seed: int) -> list[Query]:
    """Draw `count` of any number of queries, each with equal chances; in random order."""
    chance = random.Random(seed)
    kept: list[Query] = []
    for number, query in enumerate(queries):
        if number < count:
            kept.append(query)
        elif (place := chance.randrange(number + 1)) < count:
            kept[place] = query
    return chance.sample(kept, len(kept))


def prefix_scores(engine: PatchwiseEngine, features: NDArray[np.float32], order: Sequence[int]) -> NDArray[np.float32]:
    """Score an image by its first 1, 2, ... D patches, float32 [D], by its patches' features, float32 [D, C]."""
    sums = np.cumsum(features[list(order)].astype(np.float64), axis=0)
    means = sums / np.arange(1, len(sums) + 1)[:, None]
    return np.asarray(engine.compare(means.astype(np.float32)).score, np.float32)


def _patches(query: Query, sampling: Sampling, options: DecodeOptions) -> Pixels | None:
    load_image(query, options)
    if query.pixels is None:
        return None
    patches = np.empty((sampling.patches, sampling.patch_size, sampling.patch_size, 3), np.uint8)
    try:
        sampling.sample(query.pixels, patches, digest=query.digest, max_pixels=options.max_pixels)
    except TooSmallError:
        return None
    return patches


def _order(engine: PatchwiseEngine, images: Sequence[NDArray[np.float32]], sampling: Sampling) -> tuple[int, ...]:
    """Order patches so that each adds most: greedily, by the mean square of what is left to the plain score."""
    if sampling.name == "rps" or not images:  # random places are as good as each other
        return tuple(range(sampling.patches))
    features = np.stack(images).astype(np.float64)  # [N, D, C]
    whole = engine.compare(features.mean(axis=1).astype(np.float32)).score
    order: list[int] = []
    while len(order) < sampling.patches:
        errors = {}
        for patch in set(range(sampling.patches)) - set(order):
            partial = features[:, [*order, patch]].mean(axis=1).astype(np.float32)
            errors[patch] = float(np.mean((engine.compare(partial).score - whole) ** 2))
        order.append(min(errors, key=lambda patch: (errors[patch], patch)))
    return tuple(order)
