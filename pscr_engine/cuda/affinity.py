"""Keep a process on the processor cores near its GPU: those that Linux reports as local to its PCI device."""

from __future__ import annotations

import os
from pathlib import Path

_DEVICES = Path("/sys/bus/pci/devices")


def near_cpus(pci_bus_id: str, devices: Path = _DEVICES) -> set[int]:
    """Return the cores near a PCI device, such as "0000:17:00.0"; an empty set if they are not known.

    CUDA gives the address with upper-case digits, Linux has folders in lower case.
    """
    try:
        return parse_cpu_list((devices / pci_bus_id.lower() / "local_cpulist").read_text())
    except (OSError, ValueError):
        return set()


def parse_cpu_list(text: str) -> set[int]:
    """Parse Linux's notation for a set of cores: "0-3,8" is 0, 1, 2, 3 and 8.

    Raises:
        ValueError: the text is not in that notation.
    """
    out: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        out.update(range(int(first), int(last or first) + 1))
    return out


def stay_near(pci_bus_id: str) -> None:
    """Keep this process, and the threads it starts from now on, on the cores near a GPU, if it may use any of them."""
    if hasattr(os, "sched_setaffinity") and (near := near_cpus(pci_bus_id) & os.sched_getaffinity(0)):
        os.sched_setaffinity(0, near)
