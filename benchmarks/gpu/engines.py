"""Each engine alone: its scores, and images per second by batch size, against PyTorch's on the same patches."""

from __future__ import annotations

from contextlib import closing
from importlib.util import find_spec
from typing import Any

import numpy as np

from pscr_engine.backends.registry import create_backend
from pscr_engine.backends.tensorrt.compiling import CompileSettings, check_parity, compile_plan
from pscr_engine.bundle import Bundle
from pscr_engine.cuda.backend import CudaBackend
from pscr_engine.cuda.batch_size import measure_batch_sizes
from pscr_engine.errors import MissingDependencyError, PscrError

from .clock import rate
from .place import Place
from .result import Result

_SIZES = (1, 8, 16, 32, 64, 128, 256)
_PEER_BATCH = 64
_AGAINST_COMPILED = {"onnxruntime": 1.0, "tensorrt": 1.5}


def run(place: Place) -> Result:
    """Parity with ONNX Runtime FP32 on the processor; rates; shares of `torch.compile`."""
    result = Result()
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        peers = _peers(place, backbone, bundle, result)
        for name in ("onnxruntime", "tensorrt"):
            for precision in [each for each in ("fp16", "fp32") if each in bundle.info.graphs]:
                what = f"{backbone} {name} {precision}"
                try:
                    _engine(place, bundle, name, precision, what, peers, result)
                except MissingDependencyError as error:
                    result.skipped[what] = str(error)
                except PscrError as error:
                    result.check(what, False, str(error))
    return result


def _engine(
    place: Place, bundle: Bundle, name: str, precision: str, what: str, peers: dict[str, float], result: Result
) -> None:
    if name == "tensorrt":
        _, record, _ = compile_plan(bundle, place.device, CompileSettings(precision, images=place.queries()))
        result.figures[f"{what}: build"] = {"seconds": record.seconds, "parity": record.parity.as_json()}
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
    if "compiled" in peers and precision == "fp16":
        best = max(rates.values())
        result.target(f"{what}: times torch.compile", best / peers["compiled"], _AGAINST_COMPILED[name])


def _peers(place: Place, backbone: str, bundle: Bundle, result: Result) -> dict[str, float]:
    """PyTorch in FP16, channels last, with the exemplar cache: eager and compiled."""
    reason = torch_lacks(place)
    if reason:
        result.skipped[f"{backbone}: PyTorch"] = reason
        return {}
    import torch

    network, inputs = scoring_network(place, backbone, bundle, torch.float16)
    D, P = bundle.info.sampling.patches, bundle.info.patch_size
    dice = np.random.default_rng(0)
    patches = torch.from_numpy(dice.integers(0, 256, (_PEER_BATCH * D, P, P, 3), np.uint8)).to(place.name)
    found: dict[str, float] = {}
    ways: dict[str, Any] = {"eager": lambda: network}
    ways["compiled"] = lambda: torch.compile(network, mode="max-autotune", dynamic=False)
    for name, make in ways.items():
        try:
            with torch.inference_mode():
                way = make()
                found[name] = rate(
                    lambda way=way: way(patches, *inputs),
                    lambda: torch.cuda.synchronize(place.device),
                    _PEER_BATCH,
                    place.seconds,
                )
        except Exception as error:  # noqa: BLE001 - a compiler may be missing, in many ways
            result.skipped[f"{backbone}: PyTorch {name}"] = f"{type(error).__name__}: {error}"[:300]
    result.figures[f"{backbone} PyTorch fp16, channels last: images/s, batch {_PEER_BATCH}"] = {
        name: round(value) for name, value in found.items()
    }
    return found


def torch_lacks(place: Place) -> str:
    """Why PyTorch's network can't be run; empty if it can."""
    lacking = [name for name in ("torch", "torchvision", "timm") if find_spec(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    import torch

    if not torch.cuda.is_available():
        return "PyTorch can't use the GPU"
    return "" if set(place.backbones) <= {"resnet18", "resnet50"} else "no reference checkpoint of this bundle"


def scoring_network(place: Place, backbone: str, bundle: Bundle, dtype: Any) -> tuple[Any, tuple[Any, Any]]:
    """The network that the bundle was exported from, on the GPU, and its exemplar inputs."""
    import torch
    from pscr_export.checkpoint import read_checkpoint
    from pscr_export.network import ScoringNetwork

    checkpoint = read_checkpoint(place.checkpoint(backbone), backbone)
    trunk = checkpoint.trunk.to(place.name, dtype, memory_format=torch.channels_last)
    network = ScoringNetwork(trunk, checkpoint, bundle.info.sampling.patches, dtype).eval().to(place.name)
    cache = (torch.from_numpy(array).to(place.name) for array in (bundle.exemplars.hidden, bundle.exemplars.labels))
    hidden, labels = cache
    return network, (hidden, labels)
