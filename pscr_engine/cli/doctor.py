"""The command `pscr-engine doctor`: say what this host can run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib.util import find_spec
from typing import Any

import click

from ..backends.cpu import has_openvino
from ..backends.devices import lacking_packages
from ..backends.engine_choice import KIND
from ..backends.findings import findings
from ..backends.openvino import openvino_core
from ..backends.tensorrt.library import RTX
from ..cuda.device import require_driver
from ..cuda.driver import driver_version, gpu_count
from ..cuda.libraries import library_files
from ..errors import BackendError, PscrError
from ..host import cpu_flags, installed_version, usable_cpus
from ..stages.jpeg import jpeg_decoder

_PACKAGES = {
    "scoring": (
        "numpy",
        "pillow",
        "simplejpeg",
        "pyarrow",
        "safetensors",
        "onnxruntime",
        "onnxruntime-gpu",
        "openvino",
    ),
    "export": ("torch", "torchvision", "timm", "onnx", "onnxscript"),
    "training": ("scipy", "openpyxl", "matplotlib"),
    "object stores": ("obstore", "httpcore2"),
    "report": ("jinja2",),
    "metrics": ("prometheus-client",),
    "clusters": ("ray",),
    "GPU": ("pycuda", "cuda-bindings", "nvidia-nvimgcodec-cu13", "tensorrt", "tensorrt-rtx-cu13-bindings"),
}
_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def doctor(as_json: bool) -> None:
    """Say what this host can run, and what to install for the rest."""
    facts = examine()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    host = facts["host"]
    click.echo(f"pscr-engine {facts['versions']['pscr-engine']}, Python {host['python']}, {host['system']}")
    click.echo(f"{host['cpus']} usable cores, {host['memory_gb']:.0f} GB memory, {' '.join(host['cpu_flags']) or '-'}")
    click.echo(f"JPEG decoder: {host['jpeg_decoder']}")
    for gpu in facts["gpus"]:
        click.echo(f"GPU: {gpu}")
    for group, packages in _PACKAGES.items():
        click.echo(f"\n{group}:")
        for name in packages:
            click.echo(f"  {name:<23} {facts['versions'][name] or '-'}")
    if facts["cuda_libraries"]:
        click.echo("\nCUDA libraries of pip packages, which are loaded before the system's:")
        for name, file in facts["cuda_libraries"].items():
            click.echo(f"  {name:<31} {file}")
    if facts["engines"]:
        click.echo("\nfaster engine, as measured on this host:")
        for line in facts["engines"]:
            click.echo(f"  {line}")
    click.echo("\nthis host can:")
    for name, (able, advice) in facts["abilities"].items():
        click.echo(f"  {'yes' if able else 'no ':<3}  {name}{'' if able else ': ' + advice}")


def examine() -> dict[str, Any]:
    """Find out what this host has and what can be done with it, as plain values."""
    versions = {name: installed_version(name) for name in ("pscr-engine", *sum(_PACKAGES.values(), ()))}
    gpus, known_flags = _gpus(), cpu_flags()
    return {
        "host": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cpus": usable_cpus(),
            "jpeg_decoder": jpeg_decoder(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "cpu_flags": [flag for flag in _CPU_FLAGS if flag in known_flags],
        },
        "gpus": gpus,
        "versions": versions,
        "cuda_libraries": {name: str(file) for name, file in library_files().items()} if gpus else {},
        "engines": [*map(_described_choice, findings(KIND))],
        "abilities": _abilities(versions),
    }


def _abilities(versions: dict[str, str | None]) -> dict[str, tuple[bool, str]]:
    runtime = find_spec("onnxruntime") is not None
    clash = versions["onnxruntime"] is not None and versions["onnxruntime-gpu"] is not None
    score_advice = "pip install 'pscr-engine[cpu]'"
    if clash:
        score_advice = "onnxruntime and onnxruntime-gpu overwrite each other: uninstall both, then install one extra"
    lacking = [name for name in _PACKAGES["export"] if versions[name] is None]
    untrained = [name for name in _PACKAGES["training"] if versions[name] is None]
    return {
        "score on the CPU": (runtime and not clash, score_advice),
        "score on the CPU with OpenVINO, too": _openvino_ability(),
        "decide by some of the patches": (
            runtime and versions["onnx"] is not None,
            "pip install 'pscr-engine[cpu,early]'",
        ),
        "export checkpoints": (
            runtime and not lacking,
            f"pip install 'pscr-engine[cpu,export]' (lacks {', '.join(lacking) or 'onnxruntime'})",
        ),
        "train and evaluate": (
            not (lacking or untrained),
            f"pip install 'pscr-engine[cpu,export,train]' (lacks {', '.join([*lacking, *untrained])})",
        ),
        "use object stores": (_importable("obstore"), "pip install 'pscr-engine[stores]'"),
        "make reports": (versions["jinja2"] is not None, "pip install 'pscr-engine[report]'"),
        "show metrics of a run": (versions["prometheus-client"] is not None, "pip install 'pscr-engine[metrics]'"),
        "score on a Ray cluster": (versions["ray"] is not None, "pip install 'pscr-engine[ray]'"),
        "score on a GPU": _gpu_ability(),
        "decode JPEGs on a GPU": _gpu_ability("nvidia.nvimgcodec", "pip install 'pscr-engine[gpu]'"),
        "compile for TensorRT": _gpu_ability("tensorrt", "pip install 'pscr-engine[tensorrt]'"),
        "compile for TensorRT for RTX": (RTX.installed, "pip install 'pscr-engine[tensorrt-rtx]'"),
    }


def _openvino_ability() -> tuple[bool, str]:
    try:
        openvino_core()
    except PscrError as error:
        return False, "pip install 'pscr-engine[cpu,openvino]'" if not has_openvino() else str(error)
    return True, ""


def _described_choice(finding: dict[str, Any]) -> str:
    """Say in one line which engine was faster for which bundle."""
    about, found = finding["depends_on"], finding["found"]
    rates = ", ".join(f"{name} {rate:.3g} images/s" for name, rate in dict(found.get("rates") or {}).items())
    return (
        f"{found.get('engine')} for {about.get('backbone')} in {about.get('precision')}, "
        f"{about.get('threads')} threads ({rates}; bundle {str(about.get('bundle'))[:12]})"
    )


def _gpu_ability(module: str | None = None, advice: str = "") -> tuple[bool, str]:
    """Tell whether GPUs can be used, and `module` with them."""
    if not gpu_count():
        return False, "no NVIDIA driver with a GPU was found; see nvidia-smi"
    try:
        require_driver(driver_version())
    except BackendError as error:
        return False, str(error)
    if lacking := lacking_packages():
        return False, f"pip install 'pscr-engine[gpu]' (lacks {', '.join(lacking)})"
    return (True, "") if module is None or _importable(module) else (False, advice)


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # its parent is not there
        return False


def _gpus() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]
