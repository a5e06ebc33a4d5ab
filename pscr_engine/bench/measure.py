"""Measure all that `pscr-engine bench` records, step by step."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from .._version import __version__
from ..backends.base import Backend
from ..backends.devices import gpu_index, is_gpu, resolve_devices
from ..backends.precision import choose_precision
from ..backends.registry import create_backend
from ..bundle import Bundle
from ..config import ScoreConfig
from ..errors import UsageError, option
from ..host import cpu_flags, installed_version, processor_model, usable_cpus
from ..models import BundleChoice, choose_bundle
from ..progress import Progress, silent
from ..stages.infer import PatchScorer
from ..stages.pillow import pillow_for_a_run
from ..stores.uri import Place
from . import ceilings, stages
from .images import BenchImages
from .latency import latency
from .rate import Rate, measure
from .whole_runs import WholeRuns
from .work_per_image import work_of

FORMAT, FORMAT_VERSION = "pscr-engine-bench", 1
_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "numpy",
    "pillow",
    "pyarrow",
    "simplejpeg",
    "spdl-core",
    "pycuda",
)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_LOOP_IMAGES = 16


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """The options of `pscr-engine bench`.

    Args:
        bundle: as for `score`.
        images: folder of images to score; None for made-up ones.
        size: width and height of made-up images.
        kind: their format: "jpeg", "png" or "webp".
        quality: of JPEG and WebP, 1 to 100.
        devices: as for `score`; several are measured as 1, 2, … N.
        backend: as for `score`.
        precision: as for `score`.
        batch_size: as for `score`.
        seconds: about how long each figure is measured, per round; whole runs take five times as long.
        rounds: how many times; the median counts.
        scratch: folder for manifests and scores; None for the system's own. The sink's speed depends on it.
    """

    bundle: str | Place | BundleChoice | None = None
    images: Path | None = None
    size: tuple[int, int] = (512, 512)
    kind: str = "jpeg"
    quality: int = 90
    devices: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    seconds: float = 2.0
    rounds: int = 3
    scratch: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 3600:
            raise UsageError(f"{option('--seconds')} {self.seconds:g}: must be above 0 and at most 3600")
        if not 1 <= self.rounds <= 100:
            raise UsageError(f"{option('--rounds')} {self.rounds}: must be from 1 to 100")


def bench(config: BenchConfig, progress: Progress = silent) -> dict[str, Any]:
    """Measure a bundle on this host.

    Args:
        config: what to measure, and how.
        progress: is called with what is being measured.

    Returns:
        The record, as the JSON file holds it.

    Raises:
        UsageError: arguments or images that can't be used.
        BundleError, BackendError, MissingDependencyError: the bundle can't be run here.
    """
    devices = resolve_devices(config.devices)
    choice = choose_bundle(config.bundle)
    bundle = choice.open()
    precision = choose_precision(bundle, config.precision, devices, backend=config.backend)
    choice.log()
    with (
        tempfile.TemporaryDirectory(prefix="pscr-engine-bench-", dir=config.scratch) as scratch,
        pillow_for_a_run(),
        ExitStack() as stack,
    ):
        images = _images(config, Path(scratch) / "images")

        def backend(*, throughput: bool) -> Backend:
            opened = create_backend(
                bundle,
                backend=config.backend,
                device=devices[0],
                precision=precision,
                batch_size=config.batch_size,
                throughput=throughput,
            )
            return stack.enter_context(closing(opened))

        working = backend(throughput=True)
        single = working if is_gpu(devices[0]) else backend(throughput=False)
        batch_size = config.batch_size or working.batch_size
        alone = _stages_alone(config, bundle, working, batch_size, images, Path(scratch), progress)
        engine = {
            "backend": working.name,
            "device": working.device,
            "precision": precision,
            "batch_size": batch_size,
            **_beside(config, bundle, single, batch_size, images, progress),
            **_limits(bundle, working, alone["infer"]["median"], progress),
        }
        stack.close()  # the runs open the devices themselves
        score = ScoreConfig(
            "", bundle=choice, backend=config.backend, precision=precision, batch_size=config.batch_size
        )
        runs = WholeRuns(score, images.paths, Path(scratch), config.seconds, config.rounds).scaling(devices, progress)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "host": _host(devices),
        "bundle": {
            "backbone": bundle.info.backbone,
            "digest": bundle.digest,
            "sampling": bundle.info.sampling.name,
            "patches": bundle.info.sampling.patches,
            "patch_size": bundle.info.patch_size,
            "exemplars": bundle.exemplars.count,
        },
        "images": images.facts,
        "method": {"seconds": config.seconds, "rounds": config.rounds, "rates": "images per second, by round"},
        "engine": engine,
        "stages_alone": alone,
        "runs": runs,
        **_slowest(alone, runs[0]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _images(config: BenchConfig, folder: Path) -> BenchImages:
    """Make the images to score, or choose those of the folder that can be decoded."""
    if config.images is None:
        return BenchImages.make(folder, config.size, config.kind, config.quality)
    return BenchImages.of_folder(config.images)


def _stages_alone(
    config: BenchConfig,
    bundle: Bundle,
    backend: Backend,
    batch_size: int,
    images: BenchImages,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    timing = (config.seconds, config.rounds)
    data, pixels = images.encoded(), images.decoded()
    steps: dict[str, Callable[[], Rate]] = {
        "fetch": lambda: stages.fetching(images.paths, *timing),
        "decode": lambda: stages.decoding(data, *timing),
        "sample": lambda: stages.sampling(bundle, pixels, *timing),
        "infer": lambda: stages.inferring(bundle, backend, pixels, batch_size, *timing),
        "sink": lambda: stages.sinking(folder, *timing),
    }
    alone: dict[str, Any] = {}
    for name, step in steps.items():
        progress(f"{name} alone", 0, None)
        alone[name] = step().as_json()
    progress("decode alone, by format", 0, None)
    alone["decode"]["by_format"] = stages.decoding_by_format(pixels, *timing)
    return alone


def _beside(
    config: BenchConfig,
    bundle: Bundle,
    backend: Backend,
    batch_size: int,
    images: BenchImages,
    progress: Progress,
) -> dict[str, Any]:
    """Measure the latency of single batches and, on a processor, the rate of a script without a pipeline."""
    progress("latency", 0, None)
    out: dict[str, Any] = {"latency_ms": latency(bundle, backend, batch_size, images.encoded(), config.seconds)}
    if not is_gpu(backend.device):
        progress("baseline", 0, None)
        paths, scorer = images.paths[:_LOOP_IMAGES], cast("PatchScorer", backend)
        rate = measure(lambda: stages.plain_loop(bundle, scorer, paths), config.seconds, config.rounds)
        out["baseline"] = {
            "what": "fetch, decode, sample, infer of one image after another, same graph, all cores",
            "images_per_second": rate.as_json(),
        }
    return out


def _limits(bundle: Bundle, backend: Backend, rate: float, progress: Progress) -> dict[str, Any]:
    """Measure what the hardware could do, and compute the share that infer reaches at `rate` images per second."""
    progress("arithmetic peak and memory bandwidth", 0, None)
    work = work_of(bundle, backend.precision)
    peak, bandwidth, how = _ceilings(backend)
    gmacs, gbytes = rate * work.multiply_adds / 1e9, rate * work.bytes_moved / 1e9
    return {
        "work_per_image": {
            "multiply_adds": round(work.multiply_adds),
            "bytes_moved_by_operators": round(work.bytes_moved),
            "time_by_operator": work.operators,
        },
        "arithmetic": {
            "gmac_per_second": float(f"{gmacs:.4g}"),
            "peak_gmac_per_second": peak and float(f"{peak:.4g}"),
            "share": peak and round(gmacs / peak, 4),
            "how": how,
        },
        "memory": {
            "gb_per_second": float(f"{gbytes:.4g}"),
            "bandwidth_gb_per_second": bandwidth and float(f"{bandwidth:.4g}"),
            "share": bandwidth and round(gbytes / bandwidth, 4),
            "how": "bytes that operators read and write, as if no cache held them, against large copies",
        },
    }


def _ceilings(backend: Backend) -> tuple[float | None, float | None, str]:
    """Measure the arithmetic peak in GMAC/s and the memory bandwidth in GB/s, and say how the peak was measured."""
    if is_gpu(backend.device):
        from .on_gpu import device_ceilings

        return device_ceilings(backend)
    measured = ceilings.arithmetic_peak(backend.precision)
    peak, how = measured if measured else (None, "not measured: no C compiler (cc)")
    return peak, ceilings.memory_bandwidth(), how


def _slowest(alone: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Find the stage that is slowest alone, and the share of its rate that a whole run reaches."""
    name = min(alone, key=lambda each: alone[each]["median"])
    rate = run["images_per_second"]["median"]
    return {"slowest_stage": name, "share_of_slowest_stage": round(rate / alone[name]["median"], 4)}


def _host(devices: Sequence[str]) -> dict[str, Any]:
    return {
        "name": platform.node(),
        "processor": processor_model(),
        "cores": usable_cpus(),
        "instructions": [flag for flag in _FLAGS if flag in cpu_flags()],
        "gpus": _gpus(devices),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"pscr-engine": __version__, **_versions()},
    }


def _gpus(devices: Sequence[str]) -> dict[str, str]:
    from ..cuda.open import open_device

    return {device: open_device(gpu_index(device)).name for device in dict.fromkeys(devices) if is_gpu(device)}


def _versions() -> dict[str, str]:
    return {name: version for name in _PACKAGES if (version := installed_version(name)) is not None}
