"""Quantises to INT8: tries several ways, and keeps the best one on images that were not calibrated with."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

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
from .rounding import rounded_together, with_layers_of
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
# Weights are rounded and estimates made on this many of the calibration images at most.
_FEW_IMAGES = 24
# Weights are rounded on this many patches of these images or a few more.
_ROUNDING_PATCHES = 72
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
        search = _Search(Path(folder), network, images, sampling, exemplars, measure, opset, progress)
        search.run()
        search.best_file.replace(path)
    return Quantisation(search.actual_opset, search.facts())


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to quantise.

    Args:
        range: how ranges are chosen, see `METHODS`.
        seven_bits: whether weights have seven bits.
        corrected: whether features are, as the calibration images want it.
        in_float: names of the operators that stay in float.
        what_in_float: these in words.
    """

    range: str
    seven_bits: bool
    corrected: bool = False
    in_float: tuple[str, ...] = ()
    what_in_float: str = ""

    def __str__(self) -> str:
        seven_bits = "weights in 7 bits" if self.seven_bits else ""
        corrected = "features corrected" if self.corrected else ""
        in_float = f"{self.what_in_float} in float" if self.in_float else ""
        return ", ".join(filter(None, [self.range, seven_bits, corrected, in_float]))


class _Search:
    def __init__(
        self,
        folder: Path,
        network: PixelNetwork,
        images: Sequence[LabelledImage],
        sampling: Sampling,
        exemplars: Exemplars,
        measure: Callable[[OnnxRuntimeBackend], Parity],
        opset: int | None,
        progress: Progress,
    ) -> None:
        self._folder, self.best_file, self._candidate = folder, folder / "best.onnx", folder / "candidate.onnx"
        self._network, self._images, self._sampling, self._exemplars = network, images, sampling, exemplars
        self._measure, self._opset, self._progress = measure, opset, progress
        self._tried: dict[_Way, Parity] = {}
        self._operators: list[Sensitivity] = []
        self._best: _Way | None = None
        self._plain = self._export(network, "float.onnx")
        self._calibration = self._calibrate()
        self._rounded: dict[bool, PixelNetwork] = {}
        # Of the graphs with rounded weights, which take up to a gigabyte, only the one that was used last is kept.
        self._rounded_graph: tuple[bool, tuple[str, ...], Path] | None = None

    def run(self) -> None:
        # Sums that overflow cost more than a bit of weights that are rounded together.
        seven_bits = int8_saturates()
        for method in METHODS:
            if self._try(_Way(method, seven_bits)) <= _GOOD_ENOUGH:
                return
        if self._passed():
            return
        # The smallest difference may come from clipping rare values; the way with the best ranks is tried, too.
        by_ranks = max(self._tried, key=self._srcc)
        for change in self._changes():
            # What helped stays, and more is changed.
            best = self.best
            for way in dict.fromkeys([best, replace(best, range=by_ranks.range)]):
                self._try(change(way))
                if self._passed():
                    return

    def _changes(self) -> Iterator[Callable[[_Way], _Way]]:
        """Yield what makes a way lose less accuracy, first what costs the least speed."""
        yield lambda way: replace(way, corrected=True)
        if self.best.seven_bits:
            yield lambda way: replace(way, seven_bits=False)
        convolutions = [node.name for node in weighted_nodes(onnx.load(self._plain)) if node.convolution]
        for count in _FIRST_IN_FLOAT:
            yield _in_float(convolutions[:count], "first convolution" if count == 1 else f"first {count} convolutions")
        self._operators = self._sensitivities()
        before: list[str] = []
        for share in _ERROR_LEFT:
            names = left_in_float(self._operators, share, _MOST_IN_FLOAT)
            if names != before:
                yield _in_float(names, f"{len(names)} of {len(self._operators)} operators")
            before = names

    @property
    def best(self) -> _Way:
        """Return the best way so far."""
        assert self._best is not None
        return self._best

    def facts(self) -> dict[str, Any]:
        """Return what `Quantisation` keeps."""
        mixed: dict[str, Any] = {}
        way = self.best
        if names := way.in_float:
            mixed["in_float"] = {"operators": list(names)}
        if self._operators:
            macs = sum(each.multiply_adds for each in self._operators)
            in_float = sum(each.multiply_adds for each in self._operators if each.node.name in names)
            mixed.setdefault("in_float", {})["share_of_multiply_adds"] = round(in_float / macs, 4)
            mixed["share_of_error"] = _largest_shares(self._operators)
        return {
            "calibration_images": len(self._images),
            "weights": "int8 per channel, symmetric, rounded by GPTQ" + (", 7 bits" if way.seven_bits else ""),
            "activations": "uint8 per tensor",
            "chosen": str(way),
            "tried": {
                str(each): {"max_abs_diff": parity.max_abs_diff, "srcc": parity.srcc}
                for each, parity in self._tried.items()
            },
            **mixed,
        }

    def _few_images(self) -> list[LabelledImage]:
        return [self._images[i] for i in evenly_spaced(range(len(self._images)), _FEW_IMAGES)]

    def _patches(self, images: Sequence[LabelledImage]) -> Iterator[NDArray[np.uint8]]:
        return (patches_of([image], self._sampling) for image in images)

    @cached_property
    def _wanted(self) -> NDArray[np.float32]:
        """Compute the calibration images' features in float, float32 [images, C]."""
        return self._features(self._plain)

    def _sensitivities(self) -> list[Sensitivity]:
        images = self._few_images()
        return sensitivities(
            self._network,
            self._rounded_network(self.best.seven_bits),
            onnx.load(self._plain),
            self._calibration.ranges(self.best.range),
            self._patches(images),
            self._exemplars,
            lambda step, done, _: self._progress(step, done, len(images)),
        )

    def _export(self, network: PixelNetwork, name: str) -> Path:
        self.actual_opset = export_graph(network, self._sampling.patch_size, self._folder / name, self._opset)
        return self._folder / name

    def _calibrate(self) -> Calibration:
        total, done = len(self._images), iter(range(1, len(self._images) + 1))
        return Calibration(
            self._plain,
            operators(onnx.load(self._plain)),
            self._patches(self._images),
            self._exemplars,
            lambda: self._progress("calibrate int8", next(done), total),
        )

    def _rounded_network(self, seven_bits: bool) -> PixelNetwork:
        if seven_bits not in self._rounded:
            images = self._few_images()
            every = -(-len(images) * self._sampling.patches // _ROUNDING_PATCHES)
            self._rounded[seven_bits] = rounded_together(
                self._network,
                (patches[::every] for patches in self._patches(images)),
                seven_bits=seven_bits,
                after_layer=lambda done, total: self._progress("round weights for int8", done, total),
            )
        return self._rounded[seven_bits]

    def _graph(self, way: _Way) -> Path:
        """Return the float graph with weights that are rounded, but for the operators that stay in float."""
        if self._rounded_graph is None or self._rounded_graph[:2] != (way.seven_bits, way.in_float):
            network = self._rounded_network(way.seven_bits)
            if way.in_float:
                names = [node.name for node in weighted_nodes(onnx.load(self._plain))]
                patch = next(self._patches(self._images))[:1]
                network = with_layers_of(network, self._network, [name in way.in_float for name in names], patch)
            self._rounded_graph = (way.seven_bits, way.in_float, self._export(network, "rounded.onnx"))
        return self._rounded_graph[2]

    def _try(self, way: _Way) -> float:
        """Quantise, measure and keep what is best; return the difference as a share of what is allowed."""
        if way not in self._tried:
            ranges, graph = self._calibration.ranges(way.range), onnx.load(self._graph(way))
            model = patch_by_patch(quantised(graph, ranges, way.in_float, seven_bits=way.seven_bits))
            onnx.save(model, self._candidate)
            if way.corrected:
                slope, shift = _correction(self._features(self._candidate), self._wanted)
                onnx.save(with_features_corrected(model, slope, shift), self._candidate)
            parity = self._measure(OnnxRuntimeBackend(self._candidate, self._exemplars, precision="int8"))
            self._tried[way] = parity
            self._progress(f"try int8 ({way})", len(self._tried), len(METHODS))
            log.info("int8, %s: max |difference| %.2e, SRCC %s", way, parity.max_abs_diff, parity.srcc)
            if self._best is None or self._badness(way) < self._badness(self._best):
                self._best = way
                self._candidate.replace(self.best_file)
        return self._badness(self.best)

    def _passed(self) -> bool:
        return self._tried[self.best].passed

    def _srcc(self, way: _Way) -> float:
        srcc = self._tried[way].srcc
        return -1.0 if srcc is None else srcc

    def _badness(self, way: _Way) -> float:
        """Return the largest difference as a share of the allowed one; failing ranks are worse than any that pass."""
        parity = self._tried[way]
        share = parity.max_abs_diff / parity.tolerance
        ranks_fail = parity.min_srcc is not None and parity.srcc is not None and parity.srcc < parity.min_srcc
        return share + 1e6 if ranks_fail else share

    def _features(self, graph: Path) -> NDArray[np.float32]:
        """Compute the features of the calibration images, float32 [images, C], by a graph."""
        backend = OnnxRuntimeBackend(graph, self._exemplars)
        rows = []
        for patches in self._patches(self._images):
            features = backend.score(patches, features=True).features
            assert features is not None
            rows.append(features)
        return np.concatenate(rows)


def _in_float(names: Sequence[str], what: str) -> Callable[[_Way], _Way]:
    return lambda way: replace(way, in_float=tuple(names), what_in_float=what)


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
