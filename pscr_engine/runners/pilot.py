"""The threshold of a run that keeps a share of its images, from a sample of them that is scored first."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import numpy as np

from ..backends.early import EarlyBackend, all_patches
from ..bundle import Bundle
from ..config import ScoreConfig
from ..errors import PscrError, option
from ..manifests import Manifest
from ..output.run_directory import RunDirectory
from ..output.run_reader import RunReader
from ..records import Query, RunStats
from ..stages.fetch import Fetcher
from ..stages.pillow import pillow_for_a_run
from .open_models import Model
from .worker import pipeline_of

log = logging.getLogger("pscr_engine")

_IMAGES, _FEWEST = 1000, 100
# Lists that hold their images are read in blocks: a single row may cost as much as its neighbours.
_BLOCK_ROWS = 16


def threshold_of(config: ScoreConfig, model: Model, manifest: Manifest) -> float:
    """Return the score from which a run with `keep_top` keeps images: as the run that is there says, or from a sample.

    Raises:
        PscrError: see `pilot_threshold`.
    """
    if not config.overwrite and RunDirectory.holds_run(config.out):
        found = RunReader.open(config.out).run.get("threshold")
        if isinstance(found, int | float):
            return float(found)
    return pilot_threshold(config, model.bundle, model.precision, manifest)


def pilot_threshold(config: ScoreConfig, bundle: Bundle, precision: str, manifest: Manifest) -> float:
    """Score a random sample of the images by all patches, and return the score that `keep_top` of them have.

    The same list gives the same sample.

    Args:
        config: the run's, with `keep_top`.
        bundle: the model.
        precision: which of its graphs.
        manifest: the list of images.

    Raises:
        PscrError: too few of the sample can be scored.
    """
    assert config.keep_top is not None
    backend = EarlyBackend(bundle, all_patches(bundle), precision=precision)
    stats = RunStats()
    fetcher = Fetcher(private_addresses=config.columns.allow_private_addresses, stats=stats)
    pipeline = pipeline_of(config, bundle, backend, None, fetcher, stats)
    log.info("scoring a sample of %d images first, to find the threshold", _IMAGES)
    with pillow_for_a_run():
        scores = [query.score for query in pipeline.run(sample(manifest)) if query.score is not None]
    if len(scores) < _FEWEST:
        raise PscrError(
            f"only {len(scores)} images of a sample could be scored, too few to find where the best "
            f"{config.keep_top:.3g} of all begin: name the score with {option('--keep-above')}"
        )
    threshold = float(np.quantile(np.array(scores, np.float32), 1 - config.keep_top))
    log.info("%d images scored: keeping those with at least %.6g", len(scores), threshold)
    return threshold


def sample(manifest: Manifest, images: int = _IMAGES) -> Iterator[Query]:
    """Yield the queries of random rows, in order: of so many images, or of all if there are no more."""
    reader, rows = manifest.reader(), manifest.num_rows
    if rows is None:
        rows = sum(1 for _ in manifest.rows())
    chance = random.Random(manifest.fingerprint)
    block = _BLOCK_ROWS if manifest.may_hold_images else 1
    blocks = -(-rows // block)
    for index in sorted(chance.sample(range(blocks), min(blocks, -(-images // block)))):
        yield from reader.read(range(index * block, min(rows, (index + 1) * block)))
