"""`pscr-engine compile`."""

from __future__ import annotations

import click

from ..bundle import PRECISIONS
from ..errors import UsageError
from . import logs
from .progress import progress


@click.command(name="compile")
@click.option(
    "--bundle",
    default="model.pscr",
    show_default=True,
    metavar="NAME|PATH|URI",
    help="Where plans are kept, too; of one in an object store, in its copy in this user's cache.",
)
@click.option(
    "--devices", default="all", show_default=True, metavar="all|cuda:N[,cuda:N...]", help="GPUs to build for."
)
@click.option("--precision", default="auto", show_default=True, type=click.Choice(["auto", *PRECISIONS]))
@click.option(
    "--batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Images per batch; smaller ones run, too.",
)
@click.option(
    "--optimization-level",
    default=3,
    show_default=True,
    type=click.IntRange(0, 5),
    help="5 takes longest and runs fastest.",
)
@click.option("--images", help="Manifest of images for the parity check.  [default: made-up images]")
@click.option("--force", is_flag=True, help="Build anew even what is up to date.")
def compile_command(
    bundle: str,
    devices: str,
    precision: str,
    batch_size: int,
    optimization_level: int,
    images: str | None,
    force: bool,
) -> None:
    """Build and check TensorRT plans for the GPUs of this host.

    A plan fits one kind of GPU and one version of TensorRT; it is kept in BUNDLE/plans with a record of
    what it was built for, and is built again when any of that has changed. Each new plan must score
    images as ONNX Runtime does in FP32, within the tolerance of its precision, or it is refused.

    \b
    Example:
      pscr-engine compile --bundle model.pscr
    """
    logs.configure(as_json=False)
    from ..backends.registry import choose_precision
    from ..backends.tensorrt.compiling import CompileSettings, compile_plan
    from ..devices import gpu_index, is_gpu, resolve_devices
    from ..models import choose_bundle

    names = resolve_devices(devices)
    if not all(map(is_gpu, names)):
        raise UsageError("plans are for NVIDIA GPUs, and there is none here: no usable driver and GPU (see nvidia-smi)")
    choice = choose_bundle(bundle)
    choice.log()
    opened = choice.open()
    settings = CompileSettings(
        choose_precision(opened, precision, names), batch_size, optimization_level, _files(images), force
    )
    opened.graph_path("fp32")  # what the parity check needs
    for name in names:
        with progress("steps") as report:
            path, record, built = compile_plan(opened, gpu_index(name), settings, report)
        parity = record.parity
        logs.result(
            f"{name}: {path} ({f'built in {record.seconds:.0f} s' if built else 'up to date'}); parity on "
            f"{parity.images} images: max |difference| {parity.max_abs_diff:.1e} of {parity.tolerance:.1e} allowed"
        )


def _files(manifest: str | None) -> tuple[str, ...]:
    """The first images of a manifest, as many as a parity check needs."""
    if manifest is None:
        return ()
    from itertools import islice

    from ..stages.source import ManifestOptions, open_manifest

    opened = open_manifest(manifest, ManifestOptions())
    queries = islice(opened.reader().read(range(256)), 256)
    files = tuple(query.location for query in queries if query.location is not None)
    if not files:
        raise UsageError(f"--images {manifest}: names no image files")
    return files
