"""Load the compiled kernels, which are part of the package."""

from __future__ import annotations

from importlib.resources import files


def fatbin(name: str) -> bytes:
    """Read what `kernels.build` made of `NAME.cu`: machine code for sm_75 to sm_120, and PTX for later GPUs."""
    return files(__package__).joinpath(f"{name}.fatbin").read_bytes()
