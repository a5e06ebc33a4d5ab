"""Does a plan score as ONNX Runtime does? Checked when it is built on a GPU, else at its first use on each kind."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ...atomic import atomic_file
from ...bundle import Bundle, Parity
from ...compiling import check_parity
from ...cuda.backend import CudaBackend
from ...cuda.device import Device
from ...errors import ParityError
from ...host import cache_folder
from .engine_of_plan import engine_of
from .plans import PlanRecord, PlanStore, slug

log = logging.getLogger("pscr_engine")


def checked_here(
    bundle: Bundle, device: Device, record: PlanRecord, plan: bytes, images: Sequence[str] = (), *, anew: bool = False
) -> Parity:
    """Return how a plan did on this kind of GPU: as on record, or else by checking it now and recording that.

    Args:
        bundle: an opened bundle.
        device: the GPU.
        record: the plan's.
        plan: the plan.
        images: files to check on; without any, made-up ones.
        anew: whether to check although there is a record.

    Raises:
        ParityError: it failed; the message has the figures.
        BundleError, BackendError: it can't be checked, or not be run.
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
    """Raise ParityError, with the figures, if a plan failed."""
    if not parity.passed:
        srcc = "" if parity.srcc is None else f", SRCC {parity.srcc:.5f}"
        raise ParityError(
            f"the plan for {gpu} is refused: on {parity.images} images its scores differ from ONNX Runtime's "
            f"in FP32 by up to {parity.max_abs_diff:.2e} (allowed {parity.tolerance:.2e}){srcc}; {consequence}"
        )


def _files(bundle: Bundle, device: Device, record: PlanRecord) -> list[Path]:
    """Where the check of a kind of GPU is kept: beside the plan, or in the user's cache if that can't be written."""
    name = f"{record.key.name}.{slug(device.name)}.check.json"
    return [PlanStore(bundle).folder / name, cache_folder() / "plan-checks" / f"{record.sha256[:16]}-{name}"]


def _recorded(bundle: Bundle, device: Device, record: PlanRecord) -> Parity | None:
    for file in _files(bundle, device, record):
        try:
            found = json.loads(file.read_text())
            if (found["plan"], found["gpu"]) == (record.sha256, device.name):
                return Parity.from_json(found["parity"])
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
