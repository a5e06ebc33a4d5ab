"""Reads lists of labelled images, and encodes images with the PyTorch trunk."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pscr_engine.atomic import sha256_of
from pscr_engine.errors import ExemplarError, ManifestError, PscrError, option
from pscr_engine.manifests import ManifestOptions, open_manifest
from pscr_engine.progress import Progress, silent
from pscr_engine.records import MicroBatch, Query, Status
from pscr_engine.sampling import Sampling
from pscr_engine.stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions
from pscr_engine.stages.load import load_image
from pscr_engine.stages.sample import Sampler

from .network import ScoringNetwork
from .record import TrainingRecord

log = logging.getLogger("pscr_export")

_ENCODE_BATCH = 4
# More broken calibration images than this share are no accident: the list, or where it lies, is wrong.
_MOST_BROKEN = 0.1
_FAULTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image file and its label (NaN if it has none).

    Args:
        path: as the list names it.
        location: the file.
        mos: the label.
    """

    path: str
    location: str
    mos: float


def read_exemplars(source: str | Path, label_column: str = "mos") -> list[LabelledImage]:
    """Read a list of labelled images and check every one of them.

    Args:
        source: CSV, JSONL or Parquet with the columns `path` and `label_column`; relative paths
            start from its folder.
        label_column: name of the label column.

    Raises:
        ExemplarError: names every missing file, unreadable image and label that is no finite number.
        ManifestError: the list itself can't be read, or lacks a column.
    """
    try:
        manifest = open_manifest(source, ManifestOptions(path_column="path", id_column=label_column))
    except ManifestError as error:
        raise ManifestError(_as_export_says(str(error))) from error
    images, faults = [], []
    for query in manifest.rows():
        value = query.id.as_py() if isinstance(query.id, pa.Scalar) else query.id
        label = _finite(value)
        if label is None:
            trouble = "has no label" if value is None else f"label {value!r} is not a finite number"
            faults.append(f"row {query.row}, {query.path}: {trouble}")
        _try_decode(query)
        if query.ok:
            images.append(LabelledImage(str(query.path), str(query.location), math.nan if label is None else label))
        else:
            faults.append(f"row {query.row}, {query.path}: {query.error}")
    if faults:
        rows = len({fault.split(":")[0] for fault in faults})
        raise ExemplarError(f"{source}: {rows} exemplars can't be used:\n  " + "\n  ".join(faults))
    if not images:
        raise ExemplarError(f"{source}: no exemplars in it")
    return images


def read_images(source: str | Path) -> list[LabelledImage]:
    """Read a list of images without labels, for calibration, and leave out those that can't be read.

    Raises:
        ExemplarError: more than a tenth of them can't be read, or there are none.
        ManifestError: the list itself can't be read.
    """
    images, faults = [], []
    for query in open_manifest(source).rows():
        _try_decode(query)
        if query.ok:
            images.append(LabelledImage(str(query.path), str(query.location), math.nan))
        else:
            faults.append(f"row {query.row}, {query.path}: {query.error}")
    count = len(images) + len(faults)
    if not count:
        raise ExemplarError(f"{source}: no calibration images in it")
    if not faults:
        return images
    what = f"{len(faults)} of {count} calibration images can't be used: {'; '.join(faults[:_FAULTS_SHOWN])}"
    what += f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    if len(faults) > _MOST_BROKEN * count:
        raise ExemplarError(f"{source}: {what}; mend them, or take them off the list")
    log.warning("%s: left out, %s", source, what)
    return images


def recorded_exemplars(record: TrainingRecord, root: Path | None = None) -> list[LabelledImage]:
    """Return the images that a checkpoint was trained on, after checking every one of them.

    Args:
        record: the checkpoint's training record.
        root: folder that holds them now, under their names; None if they were not moved.

    Raises:
        ExemplarError: some are not there any more, or can't be read.
    """
    images, faults = [], []
    listed = record.exemplars
    for row, (name, file, mos) in enumerate(zip(listed["names"], listed["files"], listed["mos"], strict=True)):
        query = Query(row, path=str(name), location=str(file if root is None else root / str(name)))
        _try_decode(query)
        if query.ok:
            images.append(LabelledImage(str(name), str(query.location), float(mos)))
        else:
            faults.append(f"{query.location}: {query.error}")
    if faults:
        raise ExemplarError(
            f"{len(faults)} of {len(listed['names'])} training images can't be read ({faults[0]}); if they were moved, "
            f"name their folder with {option('--exemplar-root')}, else give a list with {option('--exemplars')}"
        )
    return images


def evenly_spaced(indices: Sequence[int], limit: int) -> list[int]:
    """Pick at most `limit` of the indices, evenly spaced."""
    return list(indices[:: max(1, math.ceil(len(indices) / limit))])


def patches_of(images: Sequence[LabelledImage], sampling: Sampling) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the images' patches, uint8 [len(images)·D, P, P, 3], exactly as scoring takes them.

    Raises:
        PscrError: an image can't be read any more.
    """
    queries = []
    for row, image in enumerate(images):
        query = Query(row, path=image.path, location=image.location)
        load_image(query, DecodeOptions(digest=sampling.name == "rps"))
        queries.append(query)
    sampler, batch = Sampler(sampling, len(images), DEFAULT_MAX_PIXELS), MicroBatch(queries)
    buffer = sampler.begin()
    for query in queries:
        sampler.sample(query, batch, buffer)
        if not query.ok:
            raise PscrError(f"{query.path}: {query.error}")
    sampler.finish(batch, buffer)
    assert batch.patches is not None
    return batch.patches


def encode(
    network: ScoringNetwork,
    images: Sequence[LabelledImage],
    sampling: Sampling,
    progress: Progress = silent,
    step: str = "encode exemplars",
) -> torch.Tensor:
    """Compute the features of each image, float32 [len(images), C], with PyTorch.

    Raises:
        PscrError: an image can't be read any more.
    """
    features = []
    with torch.inference_mode():
        for start in range(0, len(images), _ENCODE_BATCH):
            batch = images[start : start + _ENCODE_BATCH]
            features.append(network.features(torch.from_numpy(patches_of(batch, sampling))))
            progress(step, min(start + _ENCODE_BATCH, len(images)), len(images))
    return torch.cat(features)


def image_digests(images: Sequence[LabelledImage]) -> list[str]:
    """Compute the SHA-256 of each image's file."""
    return [sha256_of(Path(image.location)) for image in images]


def _try_decode(query: Query) -> None:
    """Fail the query unless it names a file that can be decoded."""
    if query.uri is not None:
        query.fail(Status.UNREADABLE, "is not a local file; copy it here and name the copy")
    elif query.ok and query.location is None:
        query.fail(Status.UNREADABLE, "embedded images are not supported here; give paths")
    load_image(query, DecodeOptions())
    query.pixels = None


def _as_export_says(message: str) -> str:
    """Name export's own options in what manifests say, which is about those of `score`."""
    message = message.replace(
        f"choose one with {option('--id-column')}", f"name the one of the labels with {option('--label-column')}"
    )
    return message.replace(f"choose one with {option('--path-column')}", "the column of the images must be called path")


def _finite(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
