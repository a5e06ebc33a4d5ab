"""The engines for GPUs, and which one "auto" is."""

from __future__ import annotations

import logging

from ..bundle import Bundle
from ..cuda.backend import CudaBackend
from ..cuda.device import Device
from ..cuda.engine import Engine, Shape
from ..cuda.exemplars import ResidentExemplars
from ..cuda.near import stay_near
from ..cuda.open import open_device
from ..errors import BackendError, MissingDependencyError
from .tensorrt.compiling import DEFAULT_OPTIMIZATION_LEVEL, plan_key
from .tensorrt.plans import PlanRecord, PlanStore

log = logging.getLogger("pscr_engine")


def create_on_gpu(
    bundle: Bundle, index: int, *, backend: str, precision: str, batch_size: int | None, threads: int, tune: bool
) -> CudaBackend:
    """See `registry.create_backend`. "auto" is TensorRT where the bundle has a plan that fits, else ONNX Runtime."""
    device = open_device(index)
    if threads:  # one of several workers: others look after the other cores
        stay_near(device.pci_bus_id)
    found: tuple[PlanRecord, bytes] | None = None
    if backend != "onnxruntime":
        found = _plan(bundle, device, precision, batch_size, required=backend == "tensorrt")

    def create(device: Device, exemplars: ResidentExemplars, shape: Shape) -> Engine:
        if found is not None:
            from .tensorrt.engine import TensorRtEngine

            record, plan = found
            return TensorRtEngine(
                plan, device, exemplars, shape, precision=precision, batch_size=batch_size or record.key.batch_size
            )
        from .onnxruntime_cuda import DEFAULT_BATCH_SIZE, OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            bundle.graph_path(precision),
            device,
            exemplars,
            shape,
            precision=precision,
            batch_size=batch_size or DEFAULT_BATCH_SIZE,
        )

    created = CudaBackend(bundle, device, create, threads=threads)
    if tune and batch_size is None and found is None:  # a plan is made for its batch size
        created.tune(bundle.digest)
    return created


def _plan(
    bundle: Bundle, device: Device, precision: str, batch_size: int | None, *, required: bool
) -> tuple[PlanRecord, bytes] | None:
    store = PlanStore(bundle)
    if not required and not store.folder.is_dir():
        return None
    try:
        key = plan_key(bundle, device, precision, batch_size or 1, DEFAULT_OPTIMIZATION_LEVEL)
    except (MissingDependencyError, BackendError) as error:
        if required:
            raise
        log.warning("the bundle's TensorRT plans are not used: %s", error)
        return None
    found = store.find(key, exactly=False)
    if not isinstance(found, str):
        return found
    text = f"{bundle.path}: no TensorRT plan for {device.name}: {found}"
    advice = f"pscr-engine compile --bundle {bundle.path} makes one"
    if required:
        raise BackendError(f"{text}; {advice}")
    log.warning("%s; going on with ONNX Runtime (%s)", text, advice)
    return None
