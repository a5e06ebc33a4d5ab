"""The command `pscr-engine compile`: build TensorRT plans and check them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from ..bundle import Bundle
from ..errors import UsageError
from . import logs
from .parameters import default_option, one_bundle, precision_option
from .step_progress import progress

if TYPE_CHECKING:
    from ..backends.tensorrt.compiling import Compiled


@click.command(name="compile")
@default_option(
    "--bundle",
    ("model.pscr",),
    "Where plans are kept, too; of one in an object store, in its copy in this user's cache.",
    short="-b",
    metavar="NAME|PATH|URI",
    multiple=True,
    callback=one_bundle,
)
@default_option(
    "--backend",
    "auto",
    "auto: tensorrt on a host with a GPU where it is installed, else tensorrt-rtx.",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
)
@default_option(
    "--devices", "all", "GPUs to build for; with tensorrt-rtx, to check on.", metavar="all|cuda:N[,cuda:N...]"
)
@click.option(
    "--compute-capability",
    "capabilities",
    metavar="X.Y[,X.Y...]",
    help="GPUs that tensorrt-rtx builds for, as in 8.6,8.9,12.0.  [default: one portable plan]",
)
@precision_option("auto: the fastest that the bundle has and GPUs run; all: each of these.", "all")
@default_option("--batch-size", 64, "Images per batch; smaller ones run, too.", type=click.IntRange(1, 4096))
@default_option("--optimization-level", 3, "5 takes longest and runs fastest.", type=click.IntRange(0, 5))
@click.option("--images", help="Manifest of images for the parity check.  [default: made-up images]")
@click.option("--force", is_flag=True, help="Build anew even what is up to date.")
def compile_command(
    bundle: str,
    backend: str,
    devices: str,
    capabilities: str | None,
    precision: str,
    batch_size: int,
    optimization_level: int,
    images: str | None,
    force: bool,
) -> None:
    """Build TensorRT plans, and check them on the GPUs of this host.

    A plan fits one version of TensorRT and one kind of GPU; it is kept in BUNDLE/plans with a record of
    what it was built for, and is built again when any of that has changed. It must score images as
    ONNX Runtime does in FP32, within the tolerance of its precision, or it is refused.

    TensorRT for RTX builds on any x86-64 host, without a GPU, for several kinds of GPU at once; such a
    plan is checked where it is used first.

    \b
    Examples:
      pscr-engine compile --bundle model.pscr
      pscr-engine compile --backend tensorrt-rtx --compute-capability 8.6,8.9,12.0
    """
    logs.configure(as_json=False)
    from ..backends.devices import gpu_index, is_gpu, resolve_devices
    from ..backends.tensorrt.compiling import CompileSettings, compile_ahead, compile_on_gpu
    from ..backends.tensorrt.library import FULL, RTX
    from ..backends.tensorrt.plans import PORTABLE
    from ..models import choose_bundle

    names = [name for name in resolve_devices(devices) if is_gpu(name)]
    if backend == "auto":
        if not names and not RTX.installed:
            raise UsageError(
                "there is no usable NVIDIA driver and GPU here (see nvidia-smi), and TensorRT for RTX, which builds "
                "without one, is not installed: pip install 'pscr-engine[tensorrt-rtx]'"
            )
        rtx = RTX.installed and (capabilities is not None or not names or not FULL.installed)
        backend = RTX.name if rtx else FULL.name
    if backend == FULL.name and not names:
        raise UsageError(
            "TensorRT builds on the GPU that a plan is for, and there is none here (see nvidia-smi); "
            "--backend tensorrt-rtx builds without one"
        )
    if backend == FULL.name and capabilities is not None:
        raise UsageError("--compute-capability is for --backend tensorrt-rtx: TensorRT builds for the GPU at hand")
    targets = PORTABLE if capabilities is None else _targets(capabilities)
    choice = choose_bundle(bundle)
    choice.log()
    opened = choice.open()
    opened.graph_path("fp32")  # what the parity check needs
    for chosen in _precisions(opened, precision):
        settings = CompileSettings(chosen, batch_size, optimization_level, _files(images), force, targets)
        if backend == RTX.name:
            with progress("steps") as report:
                compiled = compile_ahead(opened, settings, [gpu_index(name) for name in names], report)
            logs.result(_described(chosen, compiled))
        for name in names if backend == FULL.name else ():
            with progress("steps") as report:
                compiled = compile_on_gpu(opened, gpu_index(name), settings, report)
            logs.result(_described(name, compiled))


def _described(what: str, compiled: Compiled) -> str:
    record, parity = compiled.record, compiled.parity
    state = f"built in {record.seconds:.0f} s" if compiled.built else "up to date"
    text = f"{what}: {compiled.path} ({state}, {len(compiled.plan) / 1e6:.0f} MB)"
    if parity is None:
        return f"{text}; not yet checked on a GPU: that is done at its first use on each kind"
    return (
        f"{text}; parity on {parity.images} images: max |difference| {parity.max_abs_diff:.1e} of "
        f"{parity.tolerance:.1e} allowed"
    )


def _targets(text: str) -> str:
    """Compute capabilities in order, each once."""
    names = {name.strip() for name in text.split(",")}
    for name in names:
        if not re.fullmatch(r"\d{1,2}\.\d", name):
            raise UsageError(f"--compute-capability {text!r}: {name!r} is none; write 8.9, or 8.6,8.9,12.0")
    return ",".join(sorted(names, key=lambda name: tuple(map(int, name.split(".")))))


def _precisions(bundle: Bundle, precision: str) -> list[str]:
    from ..backends.precision import choose_precision

    if precision == "int8":
        raise UsageError(
            "--precision int8: INT8 graphs are for CPUs, and TensorRT for RTX has no INT8 convolutions; "
            "use fp16 or fp32"
        )
    if precision == "all":
        return [name for name in bundle.info.graphs if name != "int8"]
    return [choose_precision(bundle, precision, ["cuda:0"])]


def _files(manifest: str | None) -> tuple[str, ...]:
    """Return the first images of a manifest, as many as a parity check needs."""
    if manifest is None:
        return ()
    from itertools import islice

    from ..manifests import ManifestOptions, open_manifest

    opened = open_manifest(manifest, ManifestOptions())
    queries = islice(opened.reader().read(range(256)), 256)
    files = tuple(query.location for query in queries if query.location is not None)
    if not files:
        raise UsageError(f"--images {manifest}: names no image files")
    return files
