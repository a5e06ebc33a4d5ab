"""Quantises to INT8: tries several ways, and keeps the best one on images that were not calibrated with."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.bundle import Exemplars, Parity
from pscr_engine.progress import Progress
from pscr_engine.sampling import Sampling

from ..exemplars import LabelledImage, patches_of
from ..graph import export_graph
from .calibration import METHODS, Calibration
from .graph import convolutions, operators, quantised, with_features_corrected
from .patchwise import patch_by_patch
from .pixels import PixelNetwork

log = logging.getLogger("pscr_export")


# No other way is tried once the largest difference is at most this share of what is allowed.
_GOOD_ENOUGH = 0.5
# The correction of features is shrunk, as if there were this many more images that need none.
_DOUBT_IMAGES = 4
# While parity fails, this many convolutions at the beginning stay in float, more from try to try. Networks with
# depthwise convolutions need it: their first ones have few channels, of very different ranges.
_IN_FLOAT = (1, 3, 6)


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a graph was quantised.

    Args:
        opset: ONNX opset of the graph.
        facts: for `bundle.json`: the calibration images, every way tried and the one that was taken.
    """

    opset: int
    facts: dict[str, Any]


def quantise(
    network: PixelNetwork,
    path: Path,
    images: Sequence[LabelledImage],
    sampling: Sampling,
    exemplars: Exemplars,
    measure: Callable[[OnnxRuntimeBackend], Parity],
    opset: int | None,
    progress: Progress,
) -> Quantisation:
    """Write the INT8 scoring graph of `network` to `path`.

    Args:
        network: the scoring network on pixels, in eval mode.
        path: the .onnx file to write.
        images: the images to calibrate with.
        sampling: how patches are taken.
        exemplars: the bundle's, or some of them.
        measure: compares a graph's scores with PyTorch's, on other images.
        opset: ONNX opset; None for the exporter's default.
        progress: called with the step, what of it is done, and what there is to do.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        search = _Search(Path(folder), images, sampling, exemplars, measure, progress)
        actual_opset = export_graph(network, sampling.patch_size, search.graph, opset)
        search.run()
        search.best_file.replace(path)
    return Quantisation(actual_opset, search.facts())


class _Search:
    def __init__(
        self,
        folder: Path,
        images: Sequence[LabelledImage],
        sampling: Sampling,
        exemplars: Exemplars,
        measure: Callable[[OnnxRuntimeBackend], Parity],
        progress: Progress,
    ) -> None:
        self.graph, self.best_file = folder / "float.onnx", folder / "best.onnx"
        self._candidate = folder / "candidate.onnx"
        self._images, self._sampling, self._exemplars = images, sampling, exemplars
        self._measure, self._progress = measure, progress
        self._tried: dict[str, Parity] = {}
        self._best = ""

    def run(self) -> None:
        calibration = self._calibrate()
        wanted = self._features(self.graph)
        for method in METHODS:
            self._try(calibration, method, wanted)
            if self._badness(self._best) <= _GOOD_ENOUGH:
                return
        names = convolutions(onnx.load(self.graph))
        # The smallest difference may come from clipping rare values; the way with the best ranks is tried, too.
        methods = dict.fromkeys([self._best, max(self._tried, key=self._srcc)])
        for count in _IN_FLOAT:
            for method in methods:
                if self._tried[self._best].passed:
                    return
                self._try(calibration, method, wanted, names[:count])

    def facts(self) -> dict[str, Any]:
        return {
            "calibration_images": len(self._images),
            "weights": "int8 per channel, symmetric",
            "activations": "uint8 per tensor",
            "chosen": self._best,
            "tried": {
                name: {"max_abs_diff": parity.max_abs_diff, "srcc": parity.srcc} for name, parity in self._tried.items()
            },
        }

    def _calibrate(self) -> Calibration:
        total, done = len(self._images), iter(range(1, len(self._images) + 1))
        return Calibration(
            self.graph,
            operators(onnx.load(self.graph)),
            (patches_of([image], self._sampling) for image in self._images),
            self._exemplars,
            lambda: self._progress("calibrate int8", next(done), total),
        )

    def _try(
        self, calibration: Calibration, method: str, wanted: NDArray[np.float32], in_float: Sequence[str] = ()
    ) -> None:
        name = method
        if in_float:
            name += (
                ", first " + ("convolution" if len(in_float) == 1 else f"{len(in_float)} convolutions") + " in float"
            )
        model = patch_by_patch(quantised(onnx.load(self.graph), calibration.ranges(method), in_float))
        onnx.save(model, self._candidate)
        slope, shift = _correction(self._features(self._candidate), wanted)
        onnx.save(with_features_corrected(model, slope, shift), self._candidate)
        self._tried[name] = self._measure(OnnxRuntimeBackend(self._candidate, self._exemplars, precision="int8"))
        self._progress(f"try int8 ({name})", len(self._tried), len(METHODS))
        log.info(
            "int8, %s: max |difference| %.2e, SRCC %s", name, self._tried[name].max_abs_diff, self._tried[name].srcc
        )
        if not self._best or self._badness(name) < self._badness(self._best):
            self._best = name
            self._candidate.replace(self.best_file)

    def _srcc(self, name: str) -> float:
        srcc = self._tried[name].srcc
        return -1.0 if srcc is None else srcc

    def _badness(self, name: str) -> float:
        """Return the largest difference as a share of the allowed one; failing ranks are worse than any that pass."""
        parity = self._tried[name]
        share = parity.max_abs_diff / parity.tolerance
        ranks_fail = parity.min_srcc is not None and parity.srcc is not None and parity.srcc < parity.min_srcc
        return share + 1e6 if ranks_fail else share

    def _features(self, graph: Path) -> NDArray[np.float32]:
        """Compute the features of the calibration images, float32 [images, C], by a graph."""
        backend = OnnxRuntimeBackend(graph, self._exemplars)
        rows = []
        for image in self._images:
            features = backend.score(patches_of([image], self._sampling), features=True).features
            assert features is not None
            rows.append(features)
        return np.concatenate(rows)


def _correction(
    got: NDArray[np.float32], wanted: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit slope and shift per feature, float32 [C], by least squares; they undo what rounding changes on average."""
    got64, wanted64 = got.astype(np.float64), wanted.astype(np.float64)
    got_mean, wanted_mean = got64.mean(0), wanted64.mean(0)
    variance = ((got64 - got_mean) ** 2).mean(0)
    covariance = ((got64 - got_mean) * (wanted64 - wanted_mean)).mean(0)
    doubt = _DOUBT_IMAGES / len(got)
    known = variance > 1e-12
    slope = np.ones_like(variance)
    slope[known] = (covariance[known] + doubt * variance[known]) / ((1 + doubt) * variance[known])
    return slope.astype(np.float32), (wanted_mean - slope * got_mean).astype(np.float32)
