"""Decide which precision a run has: the one that was asked for, or the fastest that these devices run well."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..bundle import Bundle
from ..errors import BackendError, PscrError, UsageError, option
from ..host import MadeOnce, fast_int8, int8_saturates
from .devices import is_gpu

log = logging.getLogger("pscr_engine")


def choose_precision(
    bundle: Bundle, precision: str, devices: Sequence[str] = ("cpu",), *, backend: str = "auto"
) -> str:
    """Decide which precision "auto" stands for on these devices; any other precision is checked and returned.

    On processors, "auto" is INT8 if they have instructions for it and the bundle's INT8 scores passed their check;
    else BF16 if OpenVINO is there, they have instructions for it, and its scores pass theirs; else FP32.

    Raises:
        BundleError: the bundle lacks the precision that was asked for.
        UsageError: the devices can't run it.
        BackendError: the bundle has none that these devices run.
        ParityError: BF16 was asked for, and has failed its check.
    """
    gpu = any(map(is_gpu, devices))
    if precision == "bf16":
        return _bf16(bundle, gpu, backend)
    if precision != "auto":
        bundle.graph_path(precision)
        if gpu and precision == "int8":
            raise UsageError(f"{option('--precision', 'int8')} is for CPUs: on GPUs use fp16, or choose the device cpu")
        if precision == "int8" and int8_saturates():
            _warn_of_saturation()
        return precision
    graphs = bundle.info.graphs
    # ONNX Runtime's CPU kernels compute FP16 by way of FP32: FP16 costs time there and gains none.
    order: tuple[str, ...] = ("fp16", "fp32") if gpu else ("fp32", "fp16")
    if not gpu and "int8" in graphs and fast_int8() and graphs["int8"].parity.passed:
        order = ("int8", *order)
    elif not gpu and "fp32" in graphs and backend in ("auto", "openvino") and _bf16_passes(bundle):
        return "bf16"
    for name in order:
        if name in graphs:
            return name
    raise BackendError(f"{bundle.shown}: no precision that runs on {devices[0]}, only {', '.join(bundle.info.graphs)}")


def _bf16(bundle: Bundle, gpu: bool, backend: str) -> str:
    if gpu:
        raise UsageError(f"{option('--precision', 'bf16')} is for CPUs: on GPUs use fp16, or choose the device cpu")
    if backend not in ("auto", "openvino"):
        raise UsageError(
            f"{option('--precision', 'bf16')} is OpenVINO's, not of {option('--backend', backend)}: use openvino"
        )
    from .cpu import bf16_check

    bundle.graph_path("fp32")
    bf16_check(bundle)
    return "bf16"


def _bf16_passes(bundle: Bundle) -> bool:
    from .cpu import bf16_check, bf16_possible

    if not bf16_possible():
        return False
    try:
        bf16_check(bundle)
    except PscrError as error:
        log.warning("%s; going on with FP32", error)
        return False
    return True


@MadeOnce
def _warn_of_saturation() -> None:
    log.warning(
        "this processor has no VNNI: it adds products of bytes in 16 bits, which can overflow, so INT8 scores may be "
        f"further off than the bundle's check says; {option('--precision', 'fp32')} is exact"
    )
