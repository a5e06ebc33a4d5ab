"""Check and measure TensorRT for RTX, in a process of its own, since one process uses one TensorRT."""

from __future__ import annotations

from contextlib import closing

from pscr_engine.backends.tensorrt.engine_of_plan import engine_of
from pscr_engine.backends.tensorrt.library import RTX
from pscr_engine.backends.tensorrt.plans import PlanStore
from pscr_engine.cuda.backend import CudaBackend
from pscr_engine.cuda.batch_size import measure_batch_sizes
from pscr_engine.cuda.open import open_device
from pscr_engine.errors import PscrError

from .engines import measure_engine
from .place import Place
from .result import Result, SkippedError

_BATCH_SIZE = 64


def run(place: Place, result: Result) -> None:
    """Check parity and measure rates; find whose recording of CUDA graphs is faster, ours or the library's."""
    if not RTX.installed:
        raise SkippedError("TensorRT for RTX is not installed")
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        measure_engine(place, backbone, bundle, RTX.name, {}, result)
        device = open_device(place.device)
        for record in PlanStore(bundle).records():
            if record.key.flavour != RTX.name or record.key.precision != "fp16":
                continue
            plan = (PlanStore(bundle).folder / f"{record.key.name}.plan").read_bytes()
            for recorded_by in ("us", "library"):
                what = f"{backbone}: CUDA graphs recorded by {recorded_by}, images/s"
                try:
                    create = engine_of(record.key, plan, _BATCH_SIZE, recorded_by)
                    with closing(CudaBackend(bundle, device, create)) as backend, device.current():
                        rates = measure_batch_sizes(backend.engine, device, backend.shape, (_BATCH_SIZE,))
                except PscrError as error:
                    result.skipped[what] = str(error)
                    continue
                result.figures[what] = round(rates[_BATCH_SIZE])
