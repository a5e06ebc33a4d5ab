"""`pscr-engine compile`: build a plan, check it, keep it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .backends.base import DeviceBackend
from .backends.tensorrt.engine_of_plan import engine_of
from .backends.tensorrt.library import FULL, RTX
from .backends.tensorrt.plan_checks import checked_here, require_passed
from .backends.tensorrt.plans import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_OPTIMIZATION_LEVEL,
    PORTABLE,
    PlanKey,
    PlanRecord,
    PlanStore,
    plan_key,
)
from .bundle import Bundle, Parity
from .bundle.parity import compare
from .cuda.backend import CudaBackend
from .cuda.device import Device
from .cuda.engine import Shape
from .cuda.open import open_device
from .errors import BackendError
from .host import cache_folder
from .records import Pixels, Query
from .stages.decode import DecodeOptions, decode
from .stages.fetch import fetch
from .stages.infer import Backend

log = logging.getLogger("pscr_engine")

Report = Callable[[str, int, int | None], None]
# A plan holds weights in the layouts of several kernels: 2.6 times its graph at most, of the backbones measured.
_PLAN_PER_GRAPH = 3
_MADE_UP_IMAGES, _MADE_UP_SIDE = 48, 512


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """What `pscr-engine compile` is asked to do; see its options."""

    precision: str
    batch_size: int = DEFAULT_BATCH_SIZE
    optimization_level: int = DEFAULT_OPTIMIZATION_LEVEL
    images: Sequence[str] = ()
    force: bool = False
    targets: str = PORTABLE


class Compiled(NamedTuple):
    """What has come of it.

    Args:
        path: the plan's file.
        record: what it was built for.
        plan: its content.
        built: whether that was now.
        parity: how it did on the GPU; None if there was none.
    """

    path: Path
    record: PlanRecord
    plan: bytes
    built: bool
    parity: Parity | None


def compile_on_gpu(
    bundle: Bundle, index: int, settings: CompileSettings, report: Report = lambda step, done, total: None
) -> Compiled:
    """See that the bundle has a TensorRT plan for a GPU of this host that has passed its parity check.

    Args:
        bundle: an opened bundle.
        index: of the GPU.
        settings: what is wanted.
        report: is told about the build's progress.

    Raises:
        ParityError: the plan's scores are too far from ONNX Runtime's in FP32; nothing is kept.
        DeviceMemoryError, BackendError, MissingDependencyError: it can't be built here.
    """
    device = open_device(index)  # before TensorRT, which crashes without CUDA
    precision, level = settings.precision, settings.optimization_level
    key = plan_key(bundle, FULL, device, precision, settings.batch_size, level)
    found = _found(bundle, key, settings)
    if not isinstance(found, str):
        return found
    log.info("building a plan for %s, TensorRT %s (%s); this takes minutes", device.name, key.tensorrt, found)
    plan, seconds = _build(bundle, key, device, report)
    with closing(CudaBackend(bundle, device, engine_of(key, plan))) as backend:
        parity = check_parity(bundle, backend, settings.images)
    require_passed(parity, device.name, "nothing was kept")
    return _kept(bundle, key, plan, parity, seconds)


def compile_ahead(
    bundle: Bundle,
    settings: CompileSettings,
    indices: Sequence[int] = (),
    report: Report = lambda step, done, total: None,
) -> Compiled:
    """See that the bundle has a plan by TensorRT for RTX, which needs no GPU to build it.

    Args:
        bundle: an opened bundle.
        settings: what is wanted.
        indices: GPUs of this host to check it on; without any, it is checked at its first use.
        report: is told about the build's progress.

    Raises:
        UsageError: a target is none that it knows.
        ParityError: on a GPU, the plan's scores are too far from ONNX Runtime's in FP32; it is not used there.
        BackendError, MissingDependencyError: it can't be built here.
    """
    devices = [open_device(index) for index in indices]  # before TensorRT, which crashes without CUDA
    key = plan_key(bundle, RTX, None, settings.precision, settings.batch_size, settings.optimization_level)
    key = replace(key, compute_capability=settings.targets)
    found = _found(bundle, key, settings)
    if isinstance(found, str):
        targets = "portable" if settings.targets == PORTABLE else f"for compute capability {settings.targets}"
        log.info("building a plan (%s), TensorRT for RTX %s (%s)", targets, key.tensorrt, found)
        plan, seconds = _build(bundle, key, None, report)
        found = _kept(bundle, key, plan, None, seconds)
    for device in devices:
        parity = checked_here(bundle, device, found.record, found.plan, settings.images, anew=found.built)
        found = found._replace(parity=parity)
    return found


def _found(bundle: Bundle, key: PlanKey, settings: CompileSettings) -> Compiled | str:
    """The plan that there is already, or why it is to be built; then it is sure that it can be kept."""
    store = PlanStore(bundle)
    found = "--force" if settings.force else store.find(key, exactly=True)
    if not isinstance(found, str):
        record, plan = found
        return Compiled(store.folder / f"{key.name}.plan", record, plan, False, record.parity)
    store.require_writable(_PLAN_PER_GRAPH * bundle.graph_path(key.precision).stat().st_size)
    return found


def _build(bundle: Bundle, key: PlanKey, device: Device | None, report: Report) -> tuple[bytes, float]:
    from .backends.tensorrt.builder import Build, build_plan

    wanted = Build(
        bundle.graph_path(key.precision),
        Shape.of(bundle.info, bundle.exemplars.count),
        batch_size=key.batch_size,
        max_exemplars=key.max_exemplars,
        optimization_level=key.optimization_level,
        timing_cache=None if key.flavour == RTX.name else _timing_cache(key),
        targets=key.compute_capability if key.flavour == RTX.name else None,
    )
    start = perf_counter()
    plan = build_plan(wanted, device, report)
    return plan, perf_counter() - start


def _kept(bundle: Bundle, key: PlanKey, plan: bytes, parity: Parity | None, seconds: float) -> Compiled:
    store = PlanStore(bundle)
    path = store.write(key, plan, parity, seconds)
    found = store.find(key, exactly=True)
    if isinstance(found, str):
        raise BackendError(f"{path}: the plan can't be read back ({found})")
    return Compiled(path, found[0], plan, True, parity)


def _timing_cache(key: PlanKey) -> Path:
    """Measurements hold for a version of TensorRT and a GPU."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{key.tensorrt}-{key.gpu}")
    return cache_folder() / f"tensorrt-{name}.timing"


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
    from .backends.onnxruntime import OnnxRuntimeBackend

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
    from .scorer import Scorer

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
