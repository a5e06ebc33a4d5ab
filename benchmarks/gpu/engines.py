"""Check each engine alone, and compare its images per second by batch size with PyTorch's on the same patches."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from pscr_engine.backends.parity_check import check_parity
from pscr_engine.backends.registry import create_backend
from pscr_engine.backends.tensorrt.compiling import CompileSettings, compile_ahead, compile_on_gpu
from pscr_engine.bundle import Bundle
from pscr_engine.cuda.backend import CudaBackend
from pscr_engine.cuda.batch_size import measure_batch_sizes
from pscr_engine.errors import MissingDependencyError, PscrError

from .clock import rate
from .place import Place
from .result import Result

_SIZES = (1, 8, 16, 32, 64, 128, 256)
_PEER_BATCHES = (64, 256)
_AGAINST_COMPILED = {"onnxruntime": 1.0, "tensorrt": 1.5, "tensorrt-rtx": 1.5}


def run(place: Place, result: Result) -> None:
    """Check parity with ONNX Runtime FP32 on the processor; measure rates, and compare them with `torch.compile`."""
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        peers = _peers(place, backbone, bundle, result)
        for name in ("onnxruntime", "tensorrt"):
            measure_engine(place, backbone, bundle, name, peers, result)


def measure_engine(
    place: Place, backbone: str, bundle: Bundle, name: str, peers: dict[str, float], result: Result
) -> None:
    """Check an engine's parity and measure its rates, in each of the bundle's precisions that GPUs run."""
    for precision in [each for each in ("fp32", "fp16") if each in bundle.info.graphs]:
        what = f"{backbone} {name} {precision}"
        try:
            _engine(place, bundle, name, precision, what, peers, result)
        except MissingDependencyError as error:
            result.skipped[what] = str(error)
        except PscrError as error:
            result.check(what, False, str(error))


def _engine(
    place: Place, bundle: Bundle, name: str, precision: str, what: str, peers: dict[str, float], result: Result
) -> None:
    if name != "onnxruntime":
        settings = CompileSettings(precision, images=place.queries())
        compiled = (
            compile_on_gpu(bundle, place.device, settings)
            if name == "tensorrt"
            else compile_ahead(bundle, settings, [place.device])
        )
        assert compiled.parity is not None
        seconds, size = compiled.record.seconds, len(compiled.plan)
        result.figures[f"{what}: build"] = {"seconds": seconds, "bytes": size, "parity": compiled.parity.as_json()}
    backend = create_backend(bundle, backend=name, device=place.name, precision=precision)
    assert isinstance(backend, CudaBackend)
    with closing(backend):
        parity = check_parity(bundle, backend, place.queries())
        srcc = f"SRCC {parity.srcc:.6f}" if parity.srcc is not None else "no SRCC"
        result.check(
            f"{what}: parity with ONNX Runtime FP32",
            parity.passed and (parity.srcc is None or parity.srcc >= 0.9999),
            f"max |difference| {parity.max_abs_diff:.2e} of {parity.tolerance:.2e}, {srcc}, {parity.images} images",
        )
        with backend.gpu.current():
            rates = measure_batch_sizes(backend.engine, backend.gpu, backend.shape, _SIZES, to_the_end=True)
    result.figures[f"{what}: images/s by batch size"] = {str(size): round(value) for size, value in rates.items()}
    same = [rates[size] for size in _PEER_BATCHES if size in rates]
    if "compiled" in peers and precision == "fp16" and same:
        result.target(f"{what}: times torch.compile", max(same) / peers["compiled"], _AGAINST_COMPILED[name])


def _peers(place: Place, backbone: str, bundle: Bundle, result: Result) -> dict[str, float]:
    """Measure PyTorch in FP16 (channels last, batch norms folded, exemplars cached): the best rates by way."""
    reason = torch_lacks(place)
    if reason:
        result.skipped[f"{backbone}: PyTorch"] = reason
        return {}
    import torch

    torch.backends.cudnn.benchmark = True
    network, inputs = scoring_network(place, backbone, bundle, "fp16")
    D, P = bundle.info.sampling.patches, bundle.info.patch_size
    dice = np.random.default_rng(0)
    ways: dict[str, Any] = {"eager": lambda: network}
    ways["compiled"] = lambda: torch.compile(network, mode="max-autotune", dynamic=False)
    by_way: dict[str, dict[int, float]] = {}
    for name, make in ways.items():
        for size in _PEER_BATCHES:
            patches = torch.from_numpy(dice.integers(0, 256, (size * D, P, P, 3), np.uint8)).to(place.name)
            try:
                with torch.inference_mode():
                    way = make()
                    way(patches, *inputs)  # compiles; the warm-up calls in `rate` record CUDA graphs
                    by_way.setdefault(name, {})[size] = rate(
                        partial(way, patches, *inputs),
                        lambda: torch.cuda.synchronize(place.device),
                        size,
                        place.seconds,
                    )
            except Exception as error:  # noqa: BLE001 - a compiler may be missing, in many ways
                result.skipped[f"{backbone}: PyTorch {name}, {size}"] = f"{type(error).__name__}: {error}"[:300]
    result.figures[f"{backbone} PyTorch fp16, channels last: images/s by batch size"] = {
        name: {str(size): round(value) for size, value in rates.items()} for name, rates in by_way.items()
    }
    return {name: max(rates.values()) for name, rates in by_way.items()}


def torch_lacks(place: Place) -> str:
    """Say why PyTorch's network can't be run; "" if it can."""
    lacking = [name for name in ("torch", "torchvision", "timm") if find_spec(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    import torch

    if not torch.cuda.is_available():
        return "PyTorch can't use the GPU"
    return "" if set(place.backbones) <= {"resnet18", "resnet50"} else "no reference checkpoint of this bundle"


def scoring_network(place: Place, backbone: str, bundle: Bundle, precision: str) -> tuple[Any, tuple[Any, Any]]:
    """Return the network that the bundle was exported from, on the GPU, and its exemplar inputs."""
    import torch
    from pscr_export.checkpoint import read_checkpoint
    from pscr_export.network import ScoringNetwork
    from pscr_export.precision import TRUNK_DTYPES, prepare_trunk

    checkpoint = read_checkpoint(place.checkpoint(backbone), backbone)
    trunk = prepare_trunk(checkpoint.trunk, precision).to(place.name).to(memory_format=torch.channels_last)
    kind = TRUNK_DTYPES[precision]
    D, M = bundle.info.sampling.patches, bundle.exemplars.count
    network = ScoringNetwork(trunk, checkpoint, D, kind, exemplars=M).eval().to(place.name)
    cache = (torch.from_numpy(array).to(place.name) for array in (bundle.exemplars.hidden, bundle.exemplars.labels))
    hidden, labels = cache
    return network, (hidden, labels)
