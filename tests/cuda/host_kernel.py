"""Compile the CUDA kernels' sources for the host, and run them there."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pscr_engine.cuda.kernels

FOLDER = Path(pscr_engine.cuda.kernels.__file__).parent


def compile_object(folder: Path, *flags: str) -> Path:
    """Compile the kernels with g++ to an object file."""
    out = folder / "host_kernel.o"
    source = Path(__file__).with_name("host_kernel.cpp")
    names = [f'-D{name.upper()}="{FOLDER / name}.cu"' for name in ("patches", "spread")]
    subprocess.run(
        ["g++", "-c", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", *flags, *names, "-o", out, source], check=True
    )
    return out


class HostKernels:
    """The kernels, compiled for the host with checks for undefined behaviour."""

    def __init__(self, folder: Path) -> None:
        checks = ("-fsanitize=undefined", "-fno-sanitize-recover")
        library = folder / "host_kernel.so"
        subprocess.run(["g++", "-shared", *checks, "-o", library, compile_object(folder, *checks)], check=True)
        self._library = ctypes.CDLL(str(library))

    def launch(self, name: str, grid: tuple[int, int], block: int, *arguments: int | ctypes.c_int32) -> None:
        """Run a kernel; addresses are plain integers, everything else is a `c_int32`."""
        values: Sequence[ctypes._SimpleCData] = [
            argument if isinstance(argument, ctypes.c_int32) else ctypes.c_void_p(argument) for argument in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        assert self._library.run_kernel(name.encode(), *grid, block, pointers) == 0
