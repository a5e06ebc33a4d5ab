"""The patch kernel on the host."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pscr_engine.cuda

KERNEL = Path(pscr_engine.cuda.__file__).with_name("patches.cu")


def build(folder: Path) -> ctypes.CDLL:
    """Compile `patches.cu` with g++."""
    library = folder / "host_kernel.so"
    source = Path(__file__).with_name("host_kernel.cpp")
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"]
    subprocess.run(["g++", *flags, f'-DKERNEL="{KERNEL}"', "-o", library, source], check=True)
    return ctypes.CDLL(str(library))
