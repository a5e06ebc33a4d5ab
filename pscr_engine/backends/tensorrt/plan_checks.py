"""Check that a plan scores as ONNX Runtime does: where it is built on a GPU, else at first use on each kind of GPU."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...atomic import atomic_file
from ...bundle import Bundle, Parity
from ...bundle.parity import compare
from ...cuda.backend import CudaBackend
from ...cuda.device import Device
from ...errors import BackendError, ParityError
from ...host import cache_folder
from ...records import MicroBatch, Pixels, Query
from ...stages.base import StageSettings, run_through
from ...stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions
from ...stages.load import load_image
from ..base import Backend
from .engine_of_plan import engine_of
from .plans import PlanRecord, PlanStore, slug

log = logging.getLogger("pscr_engine")

_MADE_UP_IMAGES, _MADE_UP_SIDE = 48, 512


def checked_here(
    bundle: Bundle, device: Device, record: PlanRecord, plan: bytes, images: Sequence[str] = (), *, anew: bool = False
) -> Parity:
    """Return a plan's parity on this kind of GPU: as recorded, or else by checking it now and recording the result.

    Args:
        bundle: an opened bundle.
        device: the GPU.
        record: the plan's record.
        plan: its content.
        images: files to check on; without any, made-up ones.
        anew: whether to check although there is a record.

    Raises:
        ParityError: the plan fails the check; the message has the figures.
        BundleError, BackendError: the plan can't be checked or run.
    """
    if record.parity is not None:  # built on such a GPU
        return record.parity
    parity = None if anew else _recorded(bundle, device, record)
    if parity is None:
        log.info("%s: first use on %s: checked against ONNX Runtime in FP32", record.key.name, device.name)
        with closing(CudaBackend(bundle, device, engine_of(record.key, plan))) as backend:
            parity = check_parity(bundle, backend, images)
        _keep(bundle, device, record, parity)
    require_passed(parity, device.name, "it is not used there")
    return parity


def require_passed(parity: Parity, gpu: str, consequence: str) -> None:
    """Raise ParityError, with the figures, if a plan has failed its check."""
    if not parity.passed:
        srcc = "" if parity.srcc is None else f", SRCC {parity.srcc:.5f}"
        raise ParityError(
            f"the plan for {gpu} is refused: on {parity.images} images its scores differ from ONNX Runtime's "
            f"in FP32 by up to {parity.max_abs_diff:.2e} (allowed {parity.tolerance:.2e}){srcc}; {consequence}"
        )


def _files(bundle: Bundle, device: Device, record: PlanRecord) -> list[Path]:
    """List the files for the check on a kind of GPU: beside the plan or, where that can't be written, in the cache."""
    name = f"{record.key.name}.{slug(device.name)}.check.json"
    return [PlanStore(bundle).folder / name, cache_folder() / "plan-checks" / f"{record.sha256[:16]}-{name}"]


def _recorded(bundle: Bundle, device: Device, record: PlanRecord) -> Parity | None:
    for file in _files(bundle, device, record):
        try:
            value = json.loads(file.read_text())
            if (value["plan"], value["gpu"]) == (record.sha256, device.name):
                return Parity.from_json(value["parity"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return None


def _keep(bundle: Bundle, device: Device, record: PlanRecord, parity: Parity) -> None:
    capability = ".".join(map(str, device.compute_capability))
    value = {"plan": record.sha256, "gpu": device.name, "compute_capability": capability, "parity": parity.as_json()}
    for file in _files(bundle, device, record):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as unfinished:
                unfinished.write_text(json.dumps(value, indent=2) + "\n")
        except OSError:
            continue
        return
    log.warning("the check of the plan can't be kept; it is made again next time")


def check_parity(bundle: Bundle, backend: Backend, images: Sequence[str] = ()) -> Parity:
    """Compare a backend's scores with those of ONNX Runtime on the processor, in FP32.

    Args:
        bundle: what both run; must have an FP32 graph.
        backend: the backend to check.
        images: files; without any, made-up ones (a bundle holds its exemplars' features, not their pixels).

    Raises:
        BundleError: the bundle has no FP32 graph.
        BackendError: some of the images can't be scored.
    """
    from ..onnxruntime import OnnxRuntimeBackend

    reference = OnnxRuntimeBackend(bundle.graph_path("fp32"), bundle.exemplars)
    # Decoded once, on the host: it is the plan that is checked, not how a decoder rounds.
    pixels = [_pixels(image) for image in images] if images else made_up_images()
    parity = compare(
        backend.precision, _scores(bundle, reference, pixels), _scores(bundle, backend, pixels), bundle.info.label_range
    )
    if images:
        return parity
    # Scores of made-up images lie close together: their order says nothing.
    return Parity(parity.images, parity.max_abs_diff, parity.mean_abs_diff, parity.srcc, parity.tolerance, None)


def _pixels(file: str) -> Pixels:
    query = Query(0, path=file, location=file)
    load_image(query, DecodeOptions())
    if query.pixels is None:
        raise BackendError(f"{file}: can't be used to check the plan: {query.error}")
    return query.pixels


def _scores(bundle: Bundle, backend: Backend, images: Sequence[Pixels]) -> NDArray[np.float32]:
    sampling = bundle.info.sampling
    decoding = DecodeOptions.for_sampling(sampling, DEFAULT_MAX_PIXELS, "upscale")
    settings = StageSettings(sampling, decoding, backend.batch_size)
    queries = [Query(row, pixels=image) for row, image in enumerate(images)]
    with closing(backend.stages(settings)) as chain:
        for start in range(0, len(queries), settings.rows):
            run_through(chain, MicroBatch(queries[start : start + settings.rows]))
    for query in queries:
        if not query.ok:
            raise BackendError(f"an image can't be used to check the plan: {query.error}")
    return np.array([query.score for query in queries], np.float32)


def made_up_images() -> list[Pixels]:
    """Generate seeded images from smooth to noisy, uint8 [512, 512, 3]."""
    out = []
    for seed in range(_MADE_UP_IMAGES):
        dice = np.random.default_rng(seed)
        cells = 2 ** (2 + seed % 6)
        coarse = dice.integers(0, 256, (cells, cells, 3)).astype(np.float32)
        image = np.kron(coarse, np.ones((_MADE_UP_SIDE // cells, _MADE_UP_SIDE // cells, 1), np.float32))
        image += dice.normal(0, 4 * (seed % 5), image.shape).astype(np.float32)
        out.append(image.clip(0, 255).astype(np.uint8))
    return out
