"""Create the backend for a GPU, and decide which engine "auto" stands for."""

from __future__ import annotations

import logging
from itertools import pairwise

from ..bundle import Bundle
from ..cuda.affinity import stay_near
from ..cuda.backend import CudaBackend
from ..cuda.device import Device
from ..cuda.engine import Engine, Shape
from ..cuda.exemplars import ResidentExemplars
from ..cuda.open import open_device
from ..errors import BackendError, MissingDependencyError, ParityError
from .tensorrt.engine_of_plan import Create, engine_of
from .tensorrt.library import FLAVOURS, RTX, Flavour
from .tensorrt.plan_checks import checked_here
from .tensorrt.plans import DEFAULT_OPTIMIZATION_LEVEL, PlanRecord, PlanStore, plan_key

log = logging.getLogger("pscr_engine")


def create_on_gpu(
    bundle: Bundle, index: int, *, backend: str, precision: str, batch_size: int | None, threads: int, tune: bool
) -> CudaBackend:
    """Load a bundle into a backend on GPU `index`; "auto" is a TensorRT whose plan fits, else ONNX Runtime.

    The other arguments and the errors are those of `registry.create_backend`.
    """
    device = open_device(index)
    if threads:  # this is one of several workers, and the others use the other cores
        stay_near(device.pci_bus_id)
    if backend in FLAVOURS:
        record, plan = _plan(bundle, FLAVOURS[backend], device, precision, batch_size)
        return CudaBackend(bundle, device, engine_of(record.key, plan, batch_size), threads=threads)
    if backend == "auto":
        for flavour, later in pairwise([*PlanStore(bundle).flavours(), None]):
            assert flavour is not None
            try:
                record, plan = _plan(bundle, flavour, device, precision, batch_size)
                return CudaBackend(bundle, device, engine_of(record.key, plan, batch_size), threads=threads)
            except (MissingDependencyError, BackendError, ParityError) as error:
                log.warning("%s; going on with %s", error, "ONNX Runtime" if later is None else later.title)
    created = CudaBackend(bundle, device, _onnxruntime(bundle, precision, batch_size), threads=threads)
    if tune and batch_size is None:
        created.tune(bundle.digest)
    return created


def _onnxruntime(bundle: Bundle, precision: str, batch_size: int | None) -> Create:
    def create(device: Device, exemplars: ResidentExemplars, shape: Shape) -> Engine:
        from .onnxruntime_cuda import DEFAULT_BATCH_SIZE, OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            bundle.graph_path(precision),
            device,
            exemplars,
            shape,
            precision=precision,
            batch_size=batch_size or DEFAULT_BATCH_SIZE,
        )

    return create


def _plan(
    bundle: Bundle, flavour: Flavour, device: Device, precision: str, batch_size: int | None
) -> tuple[PlanRecord, bytes]:
    """Find a plan that fits this host and has passed its parity check on this kind of GPU, now or before.

    Raises:
        MissingDependencyError, BackendError: there is none, or its TensorRT is not installed.
        ParityError: the plan has failed its check.
    """
    key = plan_key(bundle, flavour, device, precision, batch_size or 1, DEFAULT_OPTIMIZATION_LEVEL)
    plan_or_reason = PlanStore(bundle).find(key, exactly=False)
    if isinstance(plan_or_reason, str):
        how = f" --backend {flavour.name}" if flavour is RTX else ""
        raise BackendError(
            f"{bundle.shown}: no {flavour.title} plan for {device.name}: {plan_or_reason}; "
            f"pscr-engine compile{how} --bundle {bundle.shown} makes one"
        )
    record, plan = plan_or_reason
    checked_here(bundle, device, record, plan)
    return record, plan
