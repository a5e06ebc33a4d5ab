"""Create the backend for processors, and decide which engine "auto" stands for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from ..bundle import Bundle, Parity
from ..errors import PscrError, UsageError, option
from ..host import cpu_flags, installed_version, usable_cpus
from .base import Backend
from .engine_choice import choose_engine
from .findings import Finding
from .onnxruntime import OnnxRuntimeBackend
from .openvino import OpenVinoBackend, has_bf16, openvino_version
from .parity_check import MADE_UP_IMAGES, check_parity, require_passed

log = logging.getLogger("pscr_engine")

CPU_BACKENDS = ("onnxruntime", "openvino")
CHECKS = "engine-checks"
# In FP32, engines differ by roundings only: a few images tell.
_CHECKED_IMAGES = {"fp32": 6}


def create_on_cpu(
    bundle: Bundle, *, backend: str, precision: str, threads: int | None, throughput: bool, tune: bool
) -> OnnxRuntimeBackend | OpenVinoBackend:
    """Load a bundle into a backend on the processor; "auto" is the engine that is faster here, if both are installed.

    The arguments and the errors are those of `registry.create_backend`.
    """
    engines: dict[str, Callable[[], OnnxRuntimeBackend | OpenVinoBackend]] = {
        "onnxruntime": partial(_onnxruntime, bundle, precision, threads, throughput),
        "openvino": partial(_openvino, bundle, precision, threads, throughput),
    }
    if backend not in ("auto", *engines):
        raise UsageError(f"backend {backend!r} runs on NVIDIA GPUs: name one as the device, cuda:0")
    if precision == "bf16":
        backend = "openvino"
    elif backend == "auto":
        backend = _fixed_engine()
    if backend != "auto":
        return engines[backend]()
    # FP16 graphs gain nothing on processors, whichever engine.
    if precision == "fp16" or not has_openvino():
        return engines["onnxruntime"]()
    depends_on = {
        "bundle": bundle.digest,
        "backbone": bundle.info.backbone,
        "precision": precision,
        "threads": threads or usable_cpus(),
        "versions": {name: installed_version(name) for name in ("pscr-engine", "onnxruntime", "openvino")},
    }
    choice, engine = choose_engine(engines, bundle.info.sampling, depends_on, measure=tune)
    log.log(logging.INFO if throughput else logging.DEBUG, "%s", choice)
    return engine


def _fixed_engine() -> str:
    """Return what `PSCR_ENGINE_CPU_BACKEND` says that "auto" means on this host's processors, or "auto"."""
    fixed = os.environ.get("PSCR_ENGINE_CPU_BACKEND") or "auto"
    if fixed not in ("auto", *CPU_BACKENDS):
        raise UsageError(f"PSCR_ENGINE_CPU_BACKEND is {fixed!r}: set it to {' or '.join(CPU_BACKENDS)}, or unset it")
    return fixed


def has_openvino() -> bool:
    """Tell whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def bf16_possible() -> bool:
    """Tell whether BF16 can be used here: the processor has the instructions and OpenVINO takes them."""
    if cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"}) or not has_openvino():
        return False
    try:
        return has_bf16()
    except PscrError as error:
        log.warning("%s", error)
        return False


def bf16_check(bundle: Bundle) -> Parity:
    """Check BF16's scores of a bundle on this processor, or return what the first check found.

    Raises:
        ParityError: they are too far off; the message has the figures.
        BackendError, MissingDependencyError: BF16 can't be used here.
    """
    return _checked(bundle, "bf16", lambda: _open_openvino(bundle, "bf16", None, throughput=False))


def _onnxruntime(bundle: Bundle, precision: str, threads: int | None, throughput: bool) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        bundle.graph_path(precision),
        bundle.exemplars,
        precision=precision,
        threads=threads,
        throughput=throughput,
        content=_content(bundle, precision),
    )


def _openvino(bundle: Bundle, precision: str, threads: int | None, throughput: bool) -> OpenVinoBackend:
    """Open OpenVINO's backend after its check: the bundle's own was made with ONNX Runtime."""
    opened = _open_openvino(bundle, precision, threads, throughput)
    _checked(bundle, precision, lambda: opened)
    return opened


def _open_openvino(bundle: Bundle, precision: str, threads: int | None, throughput: bool) -> OpenVinoBackend:
    graph = "fp32" if precision == "bf16" else precision
    sampling = bundle.info.sampling
    return OpenVinoBackend(
        bundle.graph_path(graph),
        bundle.exemplars,
        patches=sampling.patches,
        patch_size=sampling.patch_size,
        precision=precision,
        threads=threads,
        throughput=throughput,
        content=_content(bundle, graph),
    )


def _content(bundle: Bundle, precision: str) -> str:
    return f"{bundle.digest} {bundle.info.graphs[precision].file}"


def _checked(bundle: Bundle, precision: str, open_backend: Callable[[], Backend]) -> Parity:
    depends_on = {"bundle": bundle.digest, "engine": "openvino", "precision": precision, "version": openvino_version()}
    finding = Finding(CHECKS, depends_on)
    kept = finding.read()
    parity = None if kept is None else Parity.from_json(kept)
    if parity is None:
        backend = open_backend()
        log.info("OpenVINO in %s: first use of this bundle, checked against ONNX Runtime in FP32", precision.upper())
        parity = check_parity(bundle, backend, made_up=_CHECKED_IMAGES.get(precision, MADE_UP_IMAGES))
        finding.keep(parity.as_json())
    accepted = parity.passed or (precision in bundle.info.graphs and bundle.info.graphs[precision].parity.accepted)
    if not accepted:
        require_passed(parity, f"OpenVINO in {precision.upper()}", f"use {option('--backend', 'onnxruntime')}")
    return parity
