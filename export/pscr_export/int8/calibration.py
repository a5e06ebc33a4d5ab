"""Measures which values each activation takes on real patches, and chooses the range that eight bits cover."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import HistogramCollector, TensorsData, create_calibrator

from pscr_engine.bundle import Exemplars

_BINS, _ENTROPY_BINS, _ENTROPY_LEVELS = 2048, 256, 128

METHODS = ("min-max × 1.5", "min-max", "squared error", "percentile 99.99", "entropy")
"""Ways to choose an activation's range from its histogram."""


class Calibration:
    """Histograms of a graph's activations, from one pass over patches.

    Args:
        graph: float .onnx file with the inputs of a scoring graph.
        operators: types of the operators whose inputs and outputs are measured.
        batches: uint8 [B·D, P, P, 3] each.
        exemplars: any exemplars, as inputs of the head.
        after_batch: called after each batch.
    """

    def __init__(
        self,
        graph: Path,
        operators: list[str],
        batches: Iterable[NDArray[np.uint8]],
        exemplars: Exemplars,
        after_batch: Callable[[], None] = lambda: None,
    ) -> None:
        fixed = {"exemplar_hidden": exemplars.hidden, "exemplar_labels": exemplars.labels}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            calibrator = create_calibrator(
                graph,
                operators,
                str(Path(folder) / "augmented.onnx"),
                CalibrationMethod.Percentile,
                extra_options={"num_bins": _BINS, "symmetric": False},
            )
            for patches in batches:  # one by one: a reader's batches are all kept until the last
                calibrator.collect_data(_OneBatch({"patches": patches, **fixed}))
                after_batch()
        self._collector: Any = calibrator.collector

    def ranges(self, method: str) -> TensorsData:
        """Choose a range for each activation, by one of `METHODS`."""
        histograms = self._collector.histogram_dict
        with contextlib.redirect_stdout(io.StringIO()):
            if method.startswith("min-max"):
                # wider than what was seen: an image beyond the range is cut off, which costs more than coarser steps
                factor = np.float32(method.partition(" × ")[2] or 1)
                extremes = {name: (h[2] * factor, h[3] * factor) for name, h in histograms.items()}
                return TensorsData(CalibrationMethod.MinMax, extremes)
            if method == "squared error":
                return TensorsData(CalibrationMethod.MinMax, {n: _least_squares(h) for n, h in histograms.items()})
            if method == "entropy":
                collector = HistogramCollector("entropy", False, _ENTROPY_BINS, _ENTROPY_LEVELS, 0, "same")
                collector.histogram_dict = {name: _coarser(h) for name, h in histograms.items()}
                return TensorsData(CalibrationMethod.Entropy, collector.compute_collection_result())
            self._collector.percentile = float(method.removeprefix("percentile "))
            return TensorsData(CalibrationMethod.Percentile, self._collector.compute_collection_result())


def _least_squares(histogram: tuple[Any, ...]) -> tuple[np.float32, np.float32]:
    """Choose the range with the least mean squared error of rounding and clipping together."""
    counts, edges, low, high, _ = histogram
    values = (edges[1:] + edges[:-1]) / 2
    errors = []
    shares = np.linspace(0.2, 1, 81, dtype=np.float32)
    for share in shares:
        cut = np.maximum(values - share * high, 0) + np.maximum(share * low - values, 0)
        errors.append((counts * cut**2).sum() + counts.sum() * (share * (high - min(low, 0)) / 255) ** 2 / 12)
    share = shares[int(np.argmin(errors))]
    return np.float32(low * share), np.float32(high * share)


def _coarser(histogram: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merge a histogram into about `_ENTROPY_BINS` bins around zero: the search's time grows with their square."""
    counts, edges, low, high, _ = histogram
    factor = max(1, len(counts) // _ENTROPY_BINS)
    padding = -len(counts) % (2 * factor) // 2  # on either side
    counts = np.pad(counts, padding).reshape(-1, factor).sum(axis=1)
    width = (edges[1] - edges[0]) * factor
    end = width * len(counts) / 2
    return counts, np.linspace(-end, end, len(counts) + 1).astype(np.float32), low, high, np.float32(end)


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: dict[str, NDArray[Any]]) -> None:
        self._left = [inputs]

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return self._left.pop() if self._left else None
