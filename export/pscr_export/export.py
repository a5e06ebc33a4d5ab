"""Makes a bundle from a checkpoint and an exemplar list: whole and verified, or not at all."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pscr_engine import __version__
from pscr_engine.atomic import atomic_directory, sha256_of
from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.bundle import (
    EXEMPLAR_TABLE,
    MANIFEST_NAME,
    Bundle,
    BundleInfo,
    Exemplars,
    Graph,
    Parity,
    write_contents,
)
from pscr_engine.bundle.parity import compare
from pscr_engine.errors import ExemplarError, OutputError, ParityError, UsageError, option
from pscr_engine.progress import Progress, silent
from pscr_engine.sampling import Sampling

from .checkpoint import Checkpoint, read_checkpoint
from .exemplars import (
    LabelledImage,
    encode,
    evenly_spaced,
    image_digests,
    patches_of,
    read_exemplars,
    read_images,
    recorded_exemplars,
)
from .graph import OPSETS, export_graph
from .half_weights import store_exact_halves
from .int8.pixels import PixelNetwork
from .int8.quantise import quantise
from .network import MEAN, STD, ScoringNetwork, exemplar_hidden, reference_scores
from .precision import EXPORT_PRECISIONS, TRUNK_DTYPES, prepare_trunk
from .ranges import Range, check_ranges
from .selection import RULES, select

log = logging.getLogger("pscr_export")

_BUNDLE_FILES = re.compile(r"bundle\.json|scorer\.\w+\.onnx|exemplars\.(safetensors|parquet)|plans")

# Parity runs on this many exemplar images and against this many exemplars at most: enough to see a
# difference, cheap next to encoding thousands of exemplars.
_PARITY_IMAGES = 256
_PARITY_EXEMPLARS = 64
_PARITY_BATCH = 4
# The ways to quantise to INT8 are compared on this many of them at most.
_SEARCH_IMAGES = 256
# INT8 is calibrated on at most the first number of images, and on at most half of all; under the second it warns.
_CALIBRATION_IMAGES, _FEW_CALIBRATION_IMAGES = 128, 32


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What `pscr-engine export` is asked to do.

    Args:
        checkpoint: the .pt file.
        exemplars: list of labelled images (CSV, JSONL, Parquet with `path` and `label_column`); None for the
            images that the checkpoint was trained on, if it was trained here.
        out: the bundle to make.
        backbone: its name, or "auto".
        sampling: "ops", "nops", "rps", "none", or "auto" for what the checkpoint was trained with, else "ops".
        precisions: which graphs to make, in this order.
        calibration: more images to measure parity on, in any form that `score` takes; INT8 is calibrated on half
            of them, at most 128, and not measured on these. Without it, on exemplars.
        num_exemplars: how many exemplars to keep; None for all.
        select: rule by which they are chosen, see `selection.select`.
        exemplar_root: folder that the images that the checkpoint was trained on were moved to; None if they were not.
        label_column: the exemplar list's label column.
        label_range: smallest and largest label; None to take them from the exemplars.
        opset: ONNX opset; None for the exporter's default.
        seed: seed of the sampling "rps" and of the selection "random".
        accept_parity: precisions to keep although their parity check fails.
        overwrite: replace a bundle that is at `out`.
    """

    checkpoint: Path
    exemplars: Path | None = None
    out: Path = Path("model.pscr")
    backbone: str = "auto"
    sampling: str = "auto"
    precisions: tuple[str, ...] = ("fp32",)
    calibration: str | None = None
    num_exemplars: int | None = None
    select: str = "stratified"
    exemplar_root: Path | None = None
    label_column: str = "mos"
    label_range: tuple[float, float] | None = None
    opset: int | None = None
    seed: int = 0
    accept_parity: frozenset[str] = frozenset()
    overwrite: bool = False

    def __post_init__(self) -> None:
        for precision in (*self.precisions, *self.accept_parity):
            if precision not in EXPORT_PRECISIONS:
                raise UsageError(f"precision {precision!r}: choose from {', '.join(EXPORT_PRECISIONS)}")
        if self.select not in RULES:
            raise UsageError(f"{option('--select')} {self.select!r}: choose from {', '.join(RULES)}")
        if not self.precisions:
            raise UsageError("no precision to export: name at least one")
        if self.label_range is not None and not -math.inf < self.label_range[0] < self.label_range[1] < math.inf:
            raise UsageError(
                f"label range {self.label_range[0]:g} to {self.label_range[1]:g}: "
                "the first must be smaller, and both finite"
            )
        check_ranges(self, {"num_exemplars": Range(1)}, also="all")
        check_ranges(self, {"opset": OPSETS, "seed": Range(0, 2**63 - 1)})


def export_bundle(config: ExportConfig, progress: Progress = silent) -> Bundle:
    """Make a bundle. It appears at `config.out` whole, after every check has passed, or not at all.

    Raises:
        CheckpointError, ExemplarError, ManifestError: the inputs are not usable.
        ParityError: a graph's scores differ from PyTorch's by more than its tolerance.
        OutputError: there is something at `config.out` already, or it can't be written.
        PscrError: the ONNX exporter or checker refuses.
    """
    _check_out(config)
    checkpoint = read_checkpoint(config.checkpoint, config.backbone)
    sampling = _sampling(config, checkpoint)
    listed = _listed_images(config, checkpoint)
    chosen = select([image.mos for image in listed], config.num_exemplars, config.select, config.seed)
    images = [listed[index] for index in chosen]
    calibration = read_images(config.calibration) if config.calibration else []
    int8_images = _int8_images(calibration or images) if "int8" in config.precisions else []
    label_range = config.label_range or _label_range(config, checkpoint, listed)

    network = ScoringNetwork(checkpoint.trunk, checkpoint, sampling.patches).eval()
    features = encode(network, images, sampling, progress)
    exemplars = Exemplars(
        hidden=exemplar_hidden(checkpoint, features).numpy(),
        labels=np.array([image.mos for image in images], np.float32),
        features=features.numpy(),
    )
    probe = _Probe.create(checkpoint, network, sampling, images, features, calibration, progress)
    inputs = _GraphInputs(config, checkpoint, sampling, exemplars, probe, int8_images, label_range, progress)

    try:
        with atomic_directory(config.out) as folder:
            graphs = {}
            for precision in config.precisions:
                progress(f"export {precision}", 0, 1)
                graphs[precision] = _make_graph(folder, precision, inputs)
            _write_exemplar_table(folder, images)
            info = BundleInfo(
                backbone=checkpoint.backbone.name,
                feature_size=checkpoint.backbone.feature_size,
                patch_size=sampling.patch_size,
                sampling=sampling,
                mean=MEAN,
                std=STD,
                label_range=label_range,
                exemplars=_exemplar_source(config, images, listed),
                graphs=graphs,
                checkpoint={
                    "file": checkpoint.path.name,
                    "sha256": checkpoint.sha256,
                    "epoch": checkpoint.epoch,
                    "rho_best": checkpoint.rho_best,
                },
                created_by={
                    "pscr-engine": __version__,
                    **{name: version(name) for name in ("torch", "torchvision", "timm", "onnx")},
                },
            )
            write_contents(folder, info, exemplars)
    except OSError as error:
        raise OutputError(
            f"{config.out}: can't be written ({error.strerror or error}); choose another {option('--out')}"
        ) from error
    return Bundle.open(config.out)


def _check_out(config: ExportConfig) -> None:
    if not config.out.exists():
        return
    if not (config.out / MANIFEST_NAME).is_file():
        raise OutputError(f"{config.out}: there is something that is not a bundle; choose another {option('--out')}")
    foreign = [entry.name for entry in config.out.iterdir() if not _BUNDLE_FILES.fullmatch(entry.name)]
    if foreign:
        raise OutputError(
            f"{config.out}: holds {foreign[0]}, which is no part of a bundle; choose another {option('--out')}"
        )
    if not config.overwrite:
        raise OutputError(
            f"{config.out}: there is a bundle already; choose another {option('--out')} or use "
            f"{option('--overwrite', True)}"
        )


def _sampling(config: ExportConfig, checkpoint: Checkpoint) -> Sampling:
    record = checkpoint.record
    trained = "ops" if record is None else record.sampling
    name = trained if config.sampling == "auto" else config.sampling
    if record is not None and name != trained:
        log.warning(f"%s was trained with {option('--sampling')} %s, not %s", checkpoint.path, trained, name)
    return Sampling.create(name, checkpoint.backbone.patch_size if record is None else record.patch_size, config.seed)


def _listed_images(config: ExportConfig, checkpoint: Checkpoint) -> list[LabelledImage]:
    if config.exemplars is not None:
        return read_exemplars(config.exemplars, config.label_column)
    if checkpoint.record is None:
        raise UsageError(
            f"{checkpoint.path}: does not say what it was trained on: name labelled images with {option('--exemplars')}"
        )
    return recorded_exemplars(checkpoint.record, config.exemplar_root)


def _exemplar_source(
    config: ExportConfig, images: Sequence[LabelledImage], listed: Sequence[LabelledImage]
) -> dict[str, Any]:
    """Describe where the exemplars came from, for `bundle.json`."""
    source = config.exemplars
    chosen: dict[str, Any] = {"count": len(images), "listed": len(listed)}
    if len(images) < len(listed):
        chosen |= {"select": config.select}
    if source is None:
        return {**chosen, "source": "the checkpoint's training images", "sha256": None, "label_column": None}
    digest = sha256_of(source) if source.is_file() else None
    return {**chosen, "source": source.name, "sha256": digest, "label_column": config.label_column}


def _label_range(config: ExportConfig, checkpoint: Checkpoint, images: Sequence[LabelledImage]) -> tuple[float, float]:
    if config.exemplars is None and checkpoint.record is not None:
        return checkpoint.record.label_range
    low, high = min(image.mos for image in images), max(image.mos for image in images)
    if low == high:
        raise ExemplarError(
            f"{config.exemplars}: all labels are {low:g}; give the scale with {option('--label-range')} LOW HIGH"
        )
    return low, high


@dataclass(frozen=True, slots=True)
class _Probe:
    """What parity is measured on: images, their PyTorch scores, and indices of the exemplars these are means over."""

    images: list[LabelledImage]
    reference: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    exemplars: list[int]

    @classmethod
    def create(
        cls,
        checkpoint: Checkpoint,
        network: ScoringNetwork,
        sampling: Sampling,
        images: list[LabelledImage],
        features: torch.Tensor,
        calibration: list[LabelledImage],
        progress: Progress,
    ) -> _Probe:
        chosen = evenly_spaced(range(len(images)), _PARITY_IMAGES)
        against = evenly_spaced(range(len(images)), _PARITY_EXEMPLARS)
        queries = features[chosen]
        if calibration:
            more = encode(network, calibration, sampling, progress, "encode calibration")
            queries = torch.cat([queries, more])
        labels = torch.tensor([images[index].mos for index in against], dtype=torch.float32)
        with torch.inference_mode():
            reference = reference_scores(checkpoint, queries, features[against], labels)
        return cls([images[index] for index in chosen] + calibration, reference.numpy(), against)

    def without(self, images: Sequence[LabelledImage]) -> _Probe:
        """Return the probe without some images."""
        excluded = {image.location for image in images}
        return self._only([index for index, image in enumerate(self.images) if image.location not in excluded])

    def at_most(self, count: int) -> _Probe:
        """Return the probe with at most `count` of its images, evenly spaced."""
        return self._only(evenly_spaced(range(len(self.images)), count))

    def _only(self, indices: list[int]) -> _Probe:
        return _Probe([self.images[index] for index in indices], self.reference[indices], self.exemplars)


def _int8_images(pool: list[LabelledImage]) -> list[LabelledImage]:
    """Choose the images to calibrate INT8 on: part of `pool`, so that others are left to measure parity on."""
    limit = min(_CALIBRATION_IMAGES, len(pool) // 2)
    if limit == 0:
        raise UsageError(
            f"int8 needs images to be calibrated on, and others to be measured on: name some with "
            f"{option('--calibration')}"
        )
    if limit < _FEW_CALIBRATION_IMAGES:
        log.warning(
            f"int8 is calibrated on %d images only; name some hundred, like those to be scored, with "
            f"{option('--calibration')}",
            limit,
        )
    return [pool[index] for index in evenly_spaced(range(len(pool)), limit)]


@dataclass(frozen=True, slots=True)
class _GraphInputs:
    """What the graphs of all precisions are made from and checked with; INT8 is calibrated on `int8_images`."""

    config: ExportConfig
    checkpoint: Checkpoint
    sampling: Sampling
    exemplars: Exemplars
    probe: _Probe
    int8_images: list[LabelledImage]
    label_range: tuple[float, float]
    progress: Progress


def _make_graph(folder: Path, precision: str, inputs: _GraphInputs) -> Graph:
    """Export one precision into `folder` and check its parity."""
    config, checkpoint, sampling, exemplars = inputs.config, inputs.checkpoint, inputs.sampling, inputs.exemplars
    probe = inputs.probe
    file = f"scorer.{precision}.onnx"
    trunk = prepare_trunk(checkpoint.trunk, precision)
    subset = Exemplars(
        exemplars.hidden[probe.exemplars],
        exemplars.labels[probe.exemplars],
        exemplars.features[probe.exemplars],
    )

    def parity(backend: OnnxRuntimeBackend, probe: _Probe, step: str) -> Parity:
        scores = []
        for start in range(0, len(probe.images), _PARITY_BATCH):
            batch = probe.images[start : start + _PARITY_BATCH]
            scores.append(backend.score(patches_of(batch, sampling)).score)
            inputs.progress(step, min(start + _PARITY_BATCH, len(probe.images)), len(probe.images))
        accepted = precision in config.accept_parity
        return compare(precision, probe.reference, np.concatenate(scores), inputs.label_range, accepted=accepted)

    facts = None
    if precision == "int8":
        probe = probe.without(inputs.int8_images)
        few = probe.at_most(_SEARCH_IMAGES)
        quantised = quantise(
            PixelNetwork(trunk, checkpoint, sampling.patches, exemplars=exemplars.count).eval(),
            folder / file,
            inputs.int8_images,
            sampling,
            subset,
            lambda backend: parity(backend, few, "try int8"),
            config.opset,
            inputs.progress,
        )
        opset, facts = quantised.opset, quantised.facts
    else:
        dtype = TRUNK_DTYPES[precision]
        network = ScoringNetwork(trunk, checkpoint, sampling.patches, dtype, exemplars=exemplars.count)
        opset = export_graph(network, sampling.patch_size, folder / file, config.opset)
        del network
    del trunk
    store_exact_halves(folder / file)
    backend = OnnxRuntimeBackend(folder / file, subset, precision=precision)
    measured = parity(backend, probe, f"check {precision}")
    _require_parity(precision, measured)
    return Graph(file, opset, measured, facts)


def _require_parity(precision: str, parity: Parity) -> None:
    srcc = "n/a" if parity.srcc is None else f"{parity.srcc:.6f}"
    facts = (
        f"{precision} parity on {parity.images} images: max |difference| {parity.max_abs_diff:.2e} "
        f"(allowed {parity.tolerance:.2e}), SRCC {srcc}"
        + (f" (at least {parity.min_srcc})" if parity.min_srcc is not None else "")
    )
    if not parity.passed and not parity.accepted:
        raise ParityError(
            f"{facts}: failed; no bundle was made. Leave {precision} out, measure on more images with "
            f"{option('--calibration')}, "
            f"or keep it knowingly with {option('--accept-parity')} {precision}"
        )
    log.info("%s: %s", facts, "passed" if parity.passed else f"FAILED, kept because of {option('--accept-parity')}")


def _write_exemplar_table(folder: Path, images: Sequence[LabelledImage]) -> None:
    table = pa.table(
        {
            "path": pa.array([image.path for image in images], pa.string()),
            "sha256": pa.array(image_digests(images), pa.string()),
            "mos": pa.array([image.mos for image in images], pa.float64()),
        }
    )
    pq.write_table(table, folder / EXEMPLAR_TABLE)
