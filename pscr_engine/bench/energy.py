"""Energy that a run took, where the hardware tells: processors by RAPL, NVIDIA GPUs by NVML."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

from ..backends.devices import gpu_index, is_gpu

_POWERCAP = Path("/sys/class/powercap")


def meter(devices: Sequence[str], powercap: Path = _POWERCAP) -> tuple[Callable[[], float], str] | None:
    """A function that gives joules used from now on, and whose they are.

    Of the GPUs among `devices`, or, if there are none, of all the host's processor packages. None where nobody tells.
    """
    gpus = sorted({gpu_index(device) for device in devices if is_gpu(device)})
    return _gpu_meter(gpus) if gpus else _package_meter(powercap)


def _package_meter(powercap: Path) -> tuple[Callable[[], float], str] | None:
    """RAPL counts microjoules per package and starts again at a stated value."""
    try:
        zones = sorted(zone for zone in powercap.glob("*-rapl:*") if zone.name.count(":") == 1)
        before = [_read(zone / "energy_uj") for zone in zones]
        ranges = [_read(zone / "max_energy_range_uj") for zone in zones]
    except (OSError, ValueError):
        return None
    if not zones:
        return None

    def joules() -> float:
        used = 0
        for place, zone in enumerate(zones):
            now = _read(zone / "energy_uj")
            # At most once around: at 300 W a usual range lasts for minutes, so a long run is read in between.
            used += now - before[place] if now >= before[place] else now + ranges[place] - before[place]
        return used / 1e6

    return joules, "processor packages (RAPL)"


def _read(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _gpu_meter(gpus: Sequence[int]) -> tuple[Callable[[], float], str] | None:
    """NVML counts millijoules since the driver was loaded (Volta and later)."""
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
