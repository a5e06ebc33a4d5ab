"""Record what the GPU host has: the card, the driver, the packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pscr_engine.cli.doctor import examine
from pscr_engine.cuda.open import open_device

from .place import Place
from .result import Result

_QUERY = "name,memory.total,driver_version,pci.bus_id,clocks.max.sm,clocks.max.mem,power.limit,mig.mode.current"


def run(place: Place, result: Result) -> None:
    """Record the card, the driver, the packages, and where TensorRT's libraries are."""
    device = open_device(place.device)
    with device.current():
        free, total = device.memory()
    result.figures["device"] = {
        "name": device.name,
        "compute_capability": device.compute_capability,
        "driver_cuda": device.driver,
        "pci_bus_id": device.pci_bus_id,
        "memory_gb": round(total / 1e9, 1),
        "free_gb": round(free / 1e9, 1),
        "opened_with": type(device).__name__,
    }
    if shutil.which("nvidia-smi"):
        answer = subprocess.run(
            ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
        result.figures["nvidia_smi"] = answer.stdout.strip().splitlines()
    else:
        result.skipped["nvidia-smi"] = "not installed"
    result.figures["found"] = examine()
    # Where packages and NVIDIA's installers put it: a search of whole file systems takes minutes.
    folders = ["/usr/lib/x86_64-linux-gnu", "/usr/local/tensorrt/lib", "/usr/local/cuda/lib64"]
    folders += [
        f"{entry}/{package}" for entry in sys.path if entry for package in ("tensorrt_libs", "tensorrt_rtx_libs")
    ]
    libraries = [str(path) for folder in folders for path in Path(folder).glob("lib*infer*.so*")]
    libraries += [str(path) for folder in folders for path in Path(folder).glob("libtensorrt*.so*")]
    result.figures["tensorrt_libraries"] = sorted(libraries)
    if not libraries:
        result.skipped["TensorRT"] = "neither TensorRT nor TensorRT for RTX on this host"
