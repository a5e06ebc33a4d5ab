"""Find the settings of ONNX Runtime's CUDA provider that are the fastest on this card."""

from __future__ import annotations

import os
from contextlib import closing

from pscr_engine.backends.onnxruntime_cuda import SETTINGS_VARIABLE
from pscr_engine.backends.registry import create_backend
from pscr_engine.cuda.backend import CudaBackend
from pscr_engine.cuda.batch_size import measure_batch_sizes
from pscr_engine.errors import PscrError

from .place import Place
from .result import Result

_SETTINGS = (
    "fuse_conv_bias=0",
    "fuse_conv_bias=1",
    "fuse_conv_bias=1,cudnn_conv_algo_search=HEURISTIC",
    "fuse_conv_bias=1,prefer_nhwc=0",
    "cudnn_conv_algo_search=HEURISTIC,prefer_nhwc=0",
)
_SIZES = (64, 128, 256)


def run(place: Place, result: Result) -> None:
    """Measure images/s of the FP16 graph by settings and batch size; settings not named are as in scoring."""
    for backbone in place.backbones:
        bundle = place.bundle(backbone)
        precision = "fp16" if "fp16" in bundle.info.graphs else "fp32"
        measured: dict[str, dict[str, int]] = {}
        for settings in _SETTINGS:
            os.environ[SETTINGS_VARIABLE] = settings
            try:
                backend = create_backend(bundle, backend="onnxruntime", device=place.name, precision=precision)
                assert isinstance(backend, CudaBackend)
                with closing(backend), backend.gpu.current():
                    rates = measure_batch_sizes(backend.engine, backend.gpu, backend.shape, _SIZES, to_the_end=True)
            except PscrError as error:
                result.skipped[f"{backbone} {settings}"] = str(error)
                continue
            finally:
                del os.environ[SETTINGS_VARIABLE]
            measured[settings] = {str(size): round(value) for size, value in rates.items()}
            result.figures[f"{backbone} {precision}: images/s by settings and batch size"] = measured
        if measured:
            result.figures[f"{backbone}: best settings"] = max(measured, key=lambda name: max(measured[name].values()))
