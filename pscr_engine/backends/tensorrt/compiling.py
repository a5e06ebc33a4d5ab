"""`pscr-engine compile`: build a plan, check it, keep it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ...atomic import sha256_of
from ...bundle import Bundle, Parity
from ...cuda.backend import CudaBackend
from ...cuda.device import Device
from ...cuda.engine import Engine, Shape
from ...cuda.exemplars import ResidentExemplars
from ...cuda.open import open_device
from ...errors import BackendError, ParityError
from ...host import cache_folder
from ...parity import compare
from ...records import Pixels, Query
from ...stages.decode import DecodeOptions, decode
from ...stages.fetch import fetch
from ..base import Backend, DeviceBackend
from .library import require_tensorrt
from .plans import PlanKey, PlanRecord, PlanStore

log = logging.getLogger("pscr_engine")

DEFAULT_BATCH_SIZE = 64
DEFAULT_OPTIMIZATION_LEVEL = 3
_MADE_UP_IMAGES, _MADE_UP_SIDE = 48, 512


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """What `pscr-engine compile` is asked to do; see its options."""

    precision: str
    batch_size: int = DEFAULT_BATCH_SIZE
    optimization_level: int = DEFAULT_OPTIMIZATION_LEVEL
    images: Sequence[str] = ()
    force: bool = False


def plan_key(bundle: Bundle, device: Device, precision: str, batch_size: int, optimization_level: int) -> PlanKey:
    """What a plan for this bundle, host and wish depends on."""
    return PlanKey(
        graph=sha256_of(bundle.graph_path(precision)),
        precision=precision,
        tensorrt=require_tensorrt(),
        gpu=device.name,
        compute_capability=".".join(map(str, device.compute_capability)),
        batch_size=batch_size,
        max_exemplars=bundle.exemplars.count,
        optimization_level=optimization_level,
    )


def compile_plan(
    bundle: Bundle,
    index: int,
    settings: CompileSettings,
    report: Callable[[str, int, int | None], None] = lambda step, done, total: None,
) -> tuple[Path, PlanRecord, bool]:
    """See that the bundle has a plan for a GPU that has passed its parity check.

    Args:
        bundle: an opened bundle.
        index: of the GPU.
        settings: what is wanted.
        report: is told about the build's progress.

    Returns:
        The plan's file, its record, and whether it was built now.

    Raises:
        ParityError: the plan's scores are too far from ONNX Runtime's in FP32; nothing is kept.
        DeviceMemoryError, BackendError, MissingDependencyError: it can't be built here.
    """
    device = open_device(index)  # before TensorRT, which crashes without CUDA
    key = plan_key(bundle, device, settings.precision, settings.batch_size, settings.optimization_level)
    store = PlanStore(bundle)
    found = "--force" if settings.force else store.find(key, exactly=True)
    if not isinstance(found, str):
        return store.folder / f"{key.name}.plan", found[0], False
    store.require_writable()
    log.info("building a plan for %s, TensorRT %s (%s); this takes minutes", device.name, key.tensorrt, found)
    from .building import build_plan
    from .engine import TensorRtEngine

    shape = Shape.of(bundle.info, bundle.exemplars.count)
    start = perf_counter()
    plan = build_plan(
        bundle.graph_path(settings.precision),
        device,
        shape,
        batch_size=settings.batch_size,
        max_exemplars=key.max_exemplars,
        optimization_level=settings.optimization_level,
        timing_cache=_timing_cache(key),
        report=report,
    )
    seconds = perf_counter() - start

    def create(device: Device, exemplars: ResidentExemplars, shape: Shape) -> Engine:
        return TensorRtEngine(
            plan, device, exemplars, shape, precision=settings.precision, batch_size=settings.batch_size
        )

    with closing(CudaBackend(bundle, device, create)) as backend:
        parity = check_parity(bundle, backend, settings.images)
    if not parity.passed:
        srcc = "" if parity.srcc is None else f", SRCC {parity.srcc:.5f}"
        raise ParityError(
            f"the plan for {device.name} is refused: on {parity.images} images its scores differ from ONNX Runtime's "
            f"in FP32 by up to {parity.max_abs_diff:.2e} (allowed {parity.tolerance:.2e}){srcc}; nothing was kept"
        )
    path = store.write(key, plan, parity, seconds)
    found = store.find(key, exactly=True)
    if isinstance(found, str):
        raise BackendError(f"{path}: the plan can't be read back ({found})")
    return path, found[0], True


def check_parity(bundle: Bundle, backend: DeviceBackend, images: Sequence[str] = ()) -> Parity:
    """A backend's scores against those of ONNX Runtime on the processor, in FP32.

    Args:
        bundle: what both run; must have an FP32 graph.
        backend: to be checked.
        images: files; without any, made-up ones (a bundle holds its exemplars' features, not their pixels).

    Raises:
        BundleError: the bundle has no FP32 graph.
        BackendError: some of the images can't be scored.
    """
    from ..onnxruntime import OnnxRuntimeBackend

    reference = OnnxRuntimeBackend(bundle.graph_path("fp32"), bundle.exemplars)
    # Decoded once, on the host: it is the plan that is checked, not how a JPEG is rounded.
    shown = [_pixels(image) for image in images] if images else made_up_images()
    parity = compare(
        backend.precision, _scores(bundle, reference, shown), _scores(bundle, backend, shown), bundle.info.label_range
    )
    if images:
        return parity
    # Scores of made-up images lie close together: their order says nothing.
    return Parity(parity.images, parity.max_abs_diff, parity.mean_abs_diff, parity.srcc, parity.tolerance, None)


def _pixels(file: str) -> Pixels:
    query = Query(0, path=file, location=file)
    fetch(query)
    decode(query, DecodeOptions())
    if query.pixels is None:
        raise BackendError(f"{file}: can't be used to check the plan: {query.error}")
    return query.pixels


def _scores(bundle: Bundle, backend: Backend | DeviceBackend, images: Sequence[Pixels]) -> NDArray[np.float32]:
    from ...scorer import Scorer

    scored = Scorer(bundle, backend).score(list(images))
    for result in scored:
        if not result.ok:
            raise BackendError(f"an image can't be used to check the plan: {result.error}")
    return np.array([result.score for result in scored], np.float32)


def made_up_images() -> list[Pixels]:
    """Seeded images from smooth to noisy, uint8 [512, 512, 3]."""
    out = []
    for seed in range(_MADE_UP_IMAGES):
        dice = np.random.default_rng(seed)
        cells = 2 ** (2 + seed % 6)
        coarse = dice.integers(0, 256, (cells, cells, 3)).astype(np.float32)
        image = np.kron(coarse, np.ones((_MADE_UP_SIDE // cells, _MADE_UP_SIDE // cells, 1), np.float32))
        image += dice.normal(0, 4 * (seed % 5), image.shape).astype(np.float32)
        out.append(image.clip(0, 255).astype(np.uint8))
    return out


def _timing_cache(key: PlanKey) -> Path:
    """Measurements hold for a version of TensorRT and a GPU."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{key.tensorrt}-{key.gpu}")
    return cache_folder() / f"tensorrt-{name}.timing"
