"""Find the devices that `--devices` names, one for each worker, and what this host lacks to use its GPUs."""

from __future__ import annotations

import logging
import re
from importlib.util import find_spec

from ..cuda.driver import gpu_count
from ..cuda.open import has_bindings, has_pycuda
from ..errors import UsageError, option

log = logging.getLogger("pscr_engine")

_MAX_WORKERS = 256
_CUDA = re.compile(r"cuda(?::(\d{1,3}))?")


def resolve_devices(text: str, flag: str = "--devices") -> tuple[str, ...]:
    """Return the devices that "auto", "all" or a list like "cuda:0,cuda:1" names; one named twice gets two workers.

    "all" is every GPU, or the processor on a host without one; "auto" is the same, but means the processor where
    the packages for GPUs are not installed.

    Args:
        text: what was given.
        flag: the option that it was given to, for messages.

    Raises:
        UsageError: an unknown device, one that this host lacks, or more than 256 of them.
    """
    if text in ("auto", "all"):
        return _every_gpu(lenient=text == "auto") or ("cpu",)
    names = tuple(_canonical(name.strip(), f"{option(flag)} {text!r}") for name in text.split(","))
    if len(names) > _MAX_WORKERS:
        raise UsageError(f"{option(flag)}: {len(names)} workers are more than {_MAX_WORKERS}")
    return names


def is_gpu(device: str) -> bool:
    """Tell whether a device that `resolve_devices` returned is a GPU."""
    return device.startswith("cuda:")


def gpu_index(device: str) -> int:
    """Return N of "cuda:N"."""
    return int(device.removeprefix("cuda:"))


def lacking_packages() -> list[str]:
    """List the packages that must be installed before GPUs can be used."""
    lacking = [] if has_pycuda() or has_bindings() else ["pycuda"]
    return lacking if _has_engine() else [*lacking, "onnxruntime-gpu"]


def _has_engine() -> bool:
    from .tensorrt.library import FLAVOURS

    if any(flavour.installed for flavour in FLAVOURS.values()):
        return True
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _every_gpu(*, lenient: bool) -> tuple[str, ...]:
    count = gpu_count()
    if count and lenient and (lacking := lacking_packages()):
        log.warning(
            "scoring on the processor, not on the GPU: %s not installed (pip install 'pscr-engine[gpu]'); "
            "the device cpu makes this line go away",
            " and ".join(lacking),
        )
        return ()
    return tuple(f"cuda:{index}" for index in range(count))


def _canonical(name: str, given: str) -> str:
    if name == "cpu":
        return name
    match = _CUDA.fullmatch(name)
    if match is None:
        raise UsageError(f"{given}: {name!r} is no device; write cpu, cuda:0, or several, as in cuda:0,cuda:1")
    index, count = int(match[1] or 0), gpu_count()
    if index >= count:
        there = ", ".join(f"cuda:{each}" for each in range(count)) or "no usable NVIDIA driver and GPU; see nvidia-smi"
        raise UsageError(f"{given}: there is no {name} here ({there})")
    return f"cuda:{index}"
