"""The compiled kernels, which are part of the package."""

from __future__ import annotations

from importlib.resources import files


def fatbin(name: str) -> bytes:
    """`NAME.cu` for sm_75 to sm_120, and PTX for what comes later. Made by `build_fatbin`."""
    return files(__package__).joinpath(f"{name}.fatbin").read_bytes()
