"""Which device PyTorch computes on, found usable before any work."""

from __future__ import annotations

import warnings

import torch

from pscr_engine.errors import UsageError, one_line, option


def choose_device(name: str) -> torch.device:
    """Return the device that `--device` names; "auto" is a GPU if there is one, else the processor.

    Raises:
        UsageError: there is no such device, or it can't be used here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old, say: an error says so, too
        has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UsageError(
            f"{option('--device')} {name}: is no device; use auto, cpu, cuda, or cuda:1 for the second GPU"
        ) from None
    if device.type == "cuda" and not has_gpu:
        raise UsageError(
            f"{option('--device')} {name}: PyTorch can use no GPU here (see pscr-engine doctor); use "
            f"{option('--device', 'cpu')}"
        )
    if device.type == "meta":
        raise UsageError(f"{option('--device')} {name}: computes nothing; use auto, cpu or cuda")
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:
        raise UsageError(
            f"{option('--device')} {name}: PyTorch can't use it here ({one_line(error, 120)}); use auto, cpu or "
            f"another GPU"
        ) from error
    return device
