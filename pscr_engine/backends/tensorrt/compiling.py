"""`pscr-engine compile`: build a TensorRT plan, check it, and keep it in the bundle."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
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
from ...progress import Progress, silent
from ..parity_check import check_parity, require_passed
from .engine_of_plan import engine_of
from .library import FULL, RTX
from .plan_checks import checked_here
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

# A plan holds weights in the layouts of several kernels: 2.6 times its graph at most, of the backbones measured.
_PLAN_PER_GRAPH = 3


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """The options of `pscr-engine compile`."""

    precision: str
    batch_size: int = DEFAULT_BATCH_SIZE
    optimization_level: int = DEFAULT_OPTIMIZATION_LEVEL
    images: Sequence[str] = ()
    force: bool = False
    targets: str = PORTABLE


class Compiled(NamedTuple):
    """The plan that `pscr-engine compile` has built, or that was there already.

    Args:
        path: the plan's file.
        record: what it was built for.
        plan: its content.
        built: whether it was built now.
        parity: how far its scores on the GPU are from ONNX Runtime's; None if it was checked on none.
    """

    path: Path
    record: PlanRecord
    plan: bytes
    built: bool
    parity: Parity | None


def compile_on_gpu(bundle: Bundle, index: int, settings: CompileSettings, progress: Progress = silent) -> Compiled:
    """Make sure that the bundle has a TensorRT plan for a GPU of this host that has passed its parity check.

    Args:
        bundle: an opened bundle.
        index: the GPU's.
        settings: the command's options.
        progress: is called with the build's progress, as by `build_plan`.

    Raises:
        ParityError: the plan's scores are too far from ONNX Runtime's in FP32; nothing is kept.
        DeviceMemoryError, BackendError, MissingDependencyError: it can't be built here.
    """
    device = open_device(index)  # before TensorRT, which crashes without CUDA
    precision, level = settings.precision, settings.optimization_level
    key = plan_key(bundle, FULL, device, precision, settings.batch_size, level)
    existing = _existing(bundle, key, settings)
    if isinstance(existing, Compiled):
        return existing
    log.info("building a plan for %s, TensorRT %s (%s); this takes minutes", device.name, key.tensorrt, existing)
    plan, seconds = _build(bundle, key, device, progress)
    with closing(CudaBackend(bundle, device, engine_of(key, plan))) as backend:
        parity = check_parity(bundle, backend, settings.images)
    require_passed(parity, f"the plan for {device.name}", "nothing was kept")
    return _keep(bundle, key, plan, parity, seconds)


def compile_ahead(
    bundle: Bundle,
    settings: CompileSettings,
    indices: Sequence[int] = (),
    progress: Progress = silent,
) -> Compiled:
    """Make sure that the bundle has a plan of TensorRT for RTX, which builds plans without a GPU.

    Args:
        bundle: an opened bundle.
        settings: the command's options.
        indices: GPUs of this host to check the plan on; without any, it is checked at its first use.
        progress: is called with the build's progress, as by `build_plan`.

    Raises:
        UsageError: TensorRT for RTX doesn't know a target.
        ParityError: on a GPU, the plan's scores are too far from ONNX Runtime's in FP32; it is not used there.
        BackendError, MissingDependencyError: it can't be built here.
    """
    devices = [open_device(index) for index in indices]  # before TensorRT, which crashes without CUDA
    key = plan_key(bundle, RTX, None, settings.precision, settings.batch_size, settings.optimization_level)
    key = replace(key, compute_capability=settings.targets)
    compiled = _existing(bundle, key, settings)
    if isinstance(compiled, str):
        targets = "portable" if settings.targets == PORTABLE else f"for compute capability {settings.targets}"
        log.info("building a plan (%s), TensorRT for RTX %s (%s)", targets, key.tensorrt, compiled)
        plan, seconds = _build(bundle, key, None, progress)
        compiled = _keep(bundle, key, plan, None, seconds)
    for device in devices:
        parity = checked_here(bundle, device, compiled.record, compiled.plan, settings.images, anew=compiled.built)
        compiled = compiled._replace(parity=parity)
    return compiled


def _existing(bundle: Bundle, key: PlanKey, settings: CompileSettings) -> Compiled | str:
    """Return the bundle's plan for `key`, or why one must be built, after checking that it can be kept."""
    store = PlanStore(bundle)
    plan_or_reason = "a new one was asked for" if settings.force else store.find(key, exactly=True)
    if not isinstance(plan_or_reason, str):
        record, plan = plan_or_reason
        return Compiled(store.folder / f"{key.name}.plan", record, plan, False, record.parity)
    store.require_writable(_PLAN_PER_GRAPH * bundle.graph_path(key.precision).stat().st_size)
    return plan_or_reason


def _build(bundle: Bundle, key: PlanKey, device: Device | None, progress: Progress) -> tuple[bytes, float]:
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
    plan = build_plan(wanted, device, progress)
    return plan, perf_counter() - start


def _keep(bundle: Bundle, key: PlanKey, plan: bytes, parity: Parity | None, seconds: float) -> Compiled:
    store = PlanStore(bundle)
    path = store.write(key, plan, parity, seconds)
    plan_or_reason = store.find(key, exactly=True)
    if isinstance(plan_or_reason, str):
        raise BackendError(f"{path}: the plan can't be read back ({plan_or_reason})")
    return Compiled(path, plan_or_reason[0], plan, True, parity)


def _timing_cache(key: PlanKey) -> Path:
    """Return the file of kernel timings, which hold for one version of TensorRT and one kind of GPU."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{key.tensorrt}-{key.gpu}")
    return cache_folder() / f"tensorrt-{name}.timing"
