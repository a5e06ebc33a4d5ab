"""Check that a plan scores as ONNX Runtime does: where it is built on a GPU, else at first use on each kind of GPU."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ...atomic import atomic_file
from ...bundle import Bundle, Parity
from ...cuda.backend import CudaBackend
from ...cuda.device import Device
from ...host import cache_folder
from ..parity_check import check_parity, require_passed
from .engine_of_plan import engine_of
from .plans import PlanRecord, PlanStore, slug

log = logging.getLogger("pscr_engine")


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
    require_passed(parity, f"the plan for {device.name}", "it is not used there")
    return parity


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
