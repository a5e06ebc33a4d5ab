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

from ...bundle import Bundle, Parity
from ...cuda.backend import CudaBackend
from ...cuda.device import Device
from ...cuda.engine import Shape
from ...cuda.open import open_device
from ...errors import BackendError
from ...host import cache_folder
from .engine_of_plan import engine_of
from .library import FULL, RTX
from .plan_checks import check_parity, checked_here, require_passed
from .plans import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_OPTIMIZATION_LEVEL,
    PORTABLE,
    PlanKey,
    PlanRecord,
    PlanStore,
    plan_key,
)

log = logging.getLogger("pscr_engine")

Report = Callable[[str, int, int | None], None]
# A plan holds weights in the layouts of several kernels: 2.6 times its graph at most, of the backbones measured.
_PLAN_PER_GRAPH = 3


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
    from .builder import Build, build_plan

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
