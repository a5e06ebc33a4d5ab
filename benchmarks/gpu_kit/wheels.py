"""Download the packages of a GPU host, and unpack of them what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from pscr_engine.errors import PscrError

from .fatbin import keep_only

# Beside these, the host has PyTorch with NVIDIA's CUDA libraries, numpy, pillow, pyarrow, safetensors, click, rich,
# onnx and CUDA's compiler.
ARCHIVES: dict[str, tuple[str, ...]] = {
    "gpu": (
        "onnxruntime-gpu==1.31.1",
        "nvidia-nvimgcodec-cu13==0.9.0.20",
        "nvidia-nvjpeg",
        "spdl-core==0.8.0",
        "cuda-bindings==13.5.0",
        "cuda-pathfinder",
        "pytools",
        "mako",
        "platformdirs",
        "siphash24",
        "pycuda==2026.1",
    ),
    "tensorrt-rtx": ("tensorrt-rtx-cu13-bindings==1.7.1.116", "tensorrt-rtx-cu13-libs==1.7.1.116"),
}
_SOURCES = ("pycuda",)
_GLIBC = ("2_28", "2_27", "2_24", "2_17")
# Kernels of language models, which no backbone has: two thirds of ONNX Runtime's device code.
_NOT_NEEDED = (rb"^_ZN7cutlass", rb"fpA_intB")
_DROPPED = {
    "onnxruntime": ("tools", "backend", "datasets", "capi/libonnxruntime_providers_tensorrt.so"),
    "nvidia/nvimgcodec": ("tools", "include", "extensions/libnvjpeg2k*", "extensions/libnvtiff*"),
    "nvidia/cu13": ("include",),
    "tensorrt_rtx_libs": ("include",),
}


def download(packages: tuple[str, ...], folder: Path, python: str) -> None:
    """Fetch wheels for a Python version on x86-64 Linux, and PyCUDA's source; what is there is not fetched again.

    Raises:
        PscrError: a package can't be downloaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_{version}_x86_64" for version in _GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    for package in packages:
        name = package.partition("==")[0]
        if list(folder.glob(f"{name.replace('-', '_')}-*")):
            continue
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        if name in _SOURCES:
            command += ["--no-binary", name]
        else:
            command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
            command += [word for platform in platforms for word in ("--platform", platform)]
        outcome = subprocess.run([*command, "--dest", folder, package], capture_output=True, text=True, check=False)
        if outcome.returncode:
            raise PscrError(f"{package}: can't be downloaded for Python {python}: {outcome.stderr.strip()[-300:]}")


def unpack(archive: str, wheels: Path, target: Path, python: str, compute_capability: int) -> None:
    """Unpack the wheels of an archive into `target`/site, without what the host does not need."""
    site = target / "site"
    site.mkdir(parents=True)
    for package in ARCHIVES[archive]:
        name = package.partition("==")[0]
        (file,) = wheels.glob(f"{name.replace('-', '_')}-*")
        if name in _SOURCES:
            shutil.copy(file, target / f"{name}.tar.gz")
            continue
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(site)
    for folder, patterns in _DROPPED.items():
        for pattern in patterns:
            for path in (site / folder).glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for other in (site / "nvidia/nvimgcodec").glob("nvimgcodec_impl.cpython-*"):
        if f"cpython-{python.replace('.', '')}-" not in other.name:
            other.unlink()
    provider = site / "onnxruntime/capi/libonnxruntime_providers_cuda.so"
    if provider.exists():
        kept, blanked = keep_only(provider, compute_capability, _NOT_NEEDED)
        print(f"{provider.name}: {kept / 1e6:.0f} MB of device code kept, {blanked / 1e6:.0f} MB blanked", flush=True)
