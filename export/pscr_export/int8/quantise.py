"""Quantises to INT8: tries several ways, and keeps the best one on images that were not calibrated with."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import TensorsData

from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.bundle import Exemplars, Parity
from pscr_engine.host import int8_saturates
from pscr_engine.progress import Progress
from pscr_engine.sampling import Sampling

from ..exemplars import LabelledImage, evenly_spaced, patches_of
from ..graph import export_graph
from .calibration import METHODS, Calibration
from .graph import operators, quantised, weighted_nodes, with_features_corrected
from .patchwise import patch_by_patch
from .pixels import PixelNetwork
from .sensitivity import Sensitivity, error_left, left_in_float, sensitivities

log = logging.getLogger("pscr_export")


# No other way is tried once the largest difference is at most this share of what is allowed.
_GOOD_ENOUGH = 0.5
# The correction of features is shrunk, as if there were this many more images that need none.
_DOUBT_IMAGES = 4
# While parity fails, this many convolutions at the beginning stay in float, more from try to try. Networks with
# depthwise convolutions need it: their first ones have few channels, of very different ranges. So may processors that
# add products of bytes in 16 bits, which no estimate knows of, where weights in seven bits are not enough.
_FIRST_IN_FLOAT = (1, 3, 6)
# If it still fails, other operators do: so many that this share of the estimated error is left. With more than half of
# the multiply-adds in float there would be little to gain.
_ERROR_LEFT, _MOST_IN_FLOAT = (1 / 4, 1 / 16, 1 / 64), 0.5
# Estimates are made on this many of the calibration images at most.
_SENSITIVITY_IMAGES = 24
# So many of the operators that cost the most accuracy are named.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a graph was quantised.

    Args:
        opset: ONNX opset of the graph.
        facts: for `bundle.json`: the calibration images, every way tried and the one that was taken; if operators had
            to stay in float, which, and if estimates had to choose them, those whose rounding costs the most.
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
        search = _Search(Path(folder), network, images, sampling, exemplars, measure, progress)
        actual_opset = export_graph(network, sampling.patch_size, search.graph, opset)
        search.run()
        search.best_file.replace(path)
    return Quantisation(actual_opset, search.facts())


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to quantise, for any range.

    Args:
        name: what tells it from plain quantisation.
        in_float: names of the operators that stay in float.
        seven_bits: whether weights have seven bits.
    """

    name: str
    in_float: Sequence[str] = ()
    seven_bits: bool = False


class _Search:
    def __init__(
        self,
        folder: Path,
        network: PixelNetwork,
        images: Sequence[LabelledImage],
        sampling: Sampling,
        exemplars: Exemplars,
        measure: Callable[[OnnxRuntimeBackend], Parity],
        progress: Progress,
    ) -> None:
        self.graph, self.best_file = folder / "float.onnx", folder / "best.onnx"
        self._candidate = folder / "candidate.onnx"
        self._network, self._images, self._sampling, self._exemplars = network, images, sampling, exemplars
        self._measure, self._progress = measure, progress
        self._tried: dict[str, Parity] = {}
        self._ways_tried: dict[str, _Way] = {}
        self._operators: list[Sensitivity] = []
        self._best = ""

    def run(self) -> None:
        calibration = self._calibrate()
        wanted = self._features(self.graph)
        for method in METHODS:
            self._try(calibration, method, wanted)
            if self._badness(self._best) <= _GOOD_ENOUGH:
                return
        if self._tried[self._best].passed:
            return
        # The smallest difference may come from clipping rare values; the way with the best ranks is tried, too.
        methods = list(dict.fromkeys([self._best, max(self._tried, key=self._srcc)]))
        for way in self._ways(calibration, methods[0]):
            for method in methods:
                self._try(calibration, method, wanted, way)
                if self._tried[self._best].passed:
                    return

    def _ways(self, calibration: Calibration, method: str) -> Iterator[_Way]:
        """Yield ways to lose less accuracy, first those that cost the least speed."""
        if int8_saturates():
            yield _Way("weights in 7 bits", seven_bits=True)
        convolutions = [node.name for node in weighted_nodes(onnx.load(self.graph)) if node.convolution]
        for count in _FIRST_IN_FLOAT:
            what = "first convolution" if count == 1 else f"first {count} convolutions"
            yield _Way(f"{what} in float", convolutions[:count])
        self._operators = self._sensitivities(calibration.ranges(method))
        before: list[str] = []
        for share in _ERROR_LEFT:
            names = left_in_float(self._operators, share, _MOST_IN_FLOAT)
            if names != before:
                yield _Way(f"{len(names)} of {len(self._operators)} operators in float", names)
            before = names

    def facts(self) -> dict[str, Any]:
        """Return what `Quantisation` keeps."""
        mixed: dict[str, Any] = {}
        way = self._ways_tried[self._best]
        if names := way.in_float:
            mixed["in_float"] = {"operators": list(names)}
        if self._operators:
            macs = sum(each.multiply_adds for each in self._operators)
            in_float = sum(each.multiply_adds for each in self._operators if each.node.name in names)
            mixed.setdefault("in_float", {})["share_of_multiply_adds"] = round(in_float / macs, 4)
            mixed["share_of_error"] = _largest_shares(self._operators)
        return {
            "calibration_images": len(self._images),
            "weights": "int8 per channel, symmetric" + (", 7 bits" if way.seven_bits else ""),
            "activations": "uint8 per tensor",
            "chosen": self._best,
            "tried": {
                name: {"max_abs_diff": parity.max_abs_diff, "srcc": parity.srcc} for name, parity in self._tried.items()
            },
            **mixed,
        }

    def _sensitivities(self, ranges: TensorsData) -> list[Sensitivity]:
        images = [self._images[i] for i in evenly_spaced(range(len(self._images)), _SENSITIVITY_IMAGES)]
        return sensitivities(
            self._network,
            onnx.load(self.graph),
            ranges,
            (patches_of([image], self._sampling) for image in images),
            self._exemplars,
            lambda step, done, _: self._progress(step, done, len(images)),
        )

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
        self,
        calibration: Calibration,
        method: str,
        wanted: NDArray[np.float32],
        way: _Way | None = None,
    ) -> None:
        name = method if way is None else f"{method}, {way.name}"
        way = self._ways_tried[name] = way or _Way(name)
        ranges, seven_bits = calibration.ranges(method), way.seven_bits
        model = patch_by_patch(quantised(onnx.load(self.graph), ranges, way.in_float, seven_bits=seven_bits))
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


def _largest_shares(operators: Sequence[Sensitivity]) -> dict[str, float]:
    """Return the shares of the estimated error that the operators with the largest ones cause, by name."""
    total = error_left(operators, set()) or 1.0
    shares = {each.node.name: (each.weights + each.inputs + each.outputs) / total for each in operators}
    largest = sorted(shares, key=lambda name: -shares[name])[:_NAMED]
    return {name: round(shares[name], 4) for name in largest}


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
