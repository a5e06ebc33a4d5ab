"""Measure the energy that a run takes, where the hardware reports it: processors by RAPL, NVIDIA GPUs by NVML."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from ..backends.devices import gpu_index, is_gpu

_POWERCAP = Path("/sys/class/powercap")
# No processor package takes more, so its counter lasts at least its range divided by this.
_MOST_WATTS = 1000


def meter(devices: Sequence[str], powercap: Path = _POWERCAP) -> tuple[Callable[[], float | None], str] | None:
    """Start a meter: return a function that gives the joules used since then, and the name of what is measured.

    It measures the GPUs among `devices` or, if there are none, all processor packages. None where none reports energy.
    """
    gpus = sorted({gpu_index(device) for device in devices if is_gpu(device)})
    return _gpu_meter(gpus) if gpus else _package_meter(powercap)


def _package_meter(powercap: Path) -> tuple[Callable[[], float | None], str] | None:
    """Start a meter of RAPL's counters: microjoules per package, starting again from 0 after a stated value."""
    try:
        zones = sorted(zone for zone in powercap.glob("*-rapl:*") if zone.name.count(":") == 1)
        before = [_read(zone / "energy_uj") for zone in zones]
        ranges = [_read(zone / "max_energy_range_uj") for zone in zones]
    except (OSError, ValueError):
        return None
    if not zones:
        return None

    # A counter that may have started again more than once tells nothing.
    longest, begun = min(ranges) / 1e6 / _MOST_WATTS, monotonic()

    def joules() -> float | None:
        if monotonic() - begun > longest:
            return None
        used = 0
        for index, zone in enumerate(zones):
            now = _read(zone / "energy_uj")
            used += now - before[index] if now >= before[index] else now + ranges[index] - before[index]
        return used / 1e6

    return joules, "processor packages (RAPL)"


def _read(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _gpu_meter(gpus: Sequence[int]) -> tuple[Callable[[], float | None], str] | None:
    """Start a meter of NVML's counters: millijoules since the driver was loaded (Volta and later)."""
    from ..cuda.open import open_device

    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    handles = []
    for index in gpus:
        handle = ctypes.c_void_p()
        # CUDA and NVML may number the cards differently.
        if nvml.nvmlDeviceGetHandleByPciBusId_v2(open_device(index).pci_bus_id.encode(), ctypes.byref(handle)) != 0:
            return None
        handles.append(handle)

    def millijoules() -> int | None:
        total = 0
        for handle in handles:
            value = ctypes.c_ulonglong()
            if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) != 0:
                return None
            total += value.value
        return total

    before = millijoules()
    if before is None:
        return None
    return lambda: ((millijoules() or before) - before) / 1e3, "GPUs (NVML)"
