"""Quantised scoring graphs of networks small enough to export in a moment."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from pscr_export.graph import export_graph
from pscr_export.int8.calibration import Calibration
from pscr_export.int8.graph import operators, quantised
from pscr_export.int8.pixels import PixelNetwork
from torch import nn

from pscr_engine.bundle import Exemplars

from ..small import small_checkpoint

C, D = 6, 3
"""Features, and patches of an image."""


def quantised_graph(folder: Path, trunk: nn.Module, patch_size: int) -> onnx.ModelProto:
    """Export and quantise a network whose trunk computes C features, calibrated on noise."""
    checkpoint = small_checkpoint(C, trunk)
    network = PixelNetwork(checkpoint.trunk, checkpoint, patches=D).eval()
    path = folder / "float.onnx"
    export_graph(network, patch_size, path, None)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (D, patch_size, patch_size, 3), dtype=np.uint8) for _ in range(4)]
    cache = Exemplars(*(rng.normal(size=shape).astype(np.float32) for shape in ((2, C), (2,), (2, C))))
    kinds = operators(onnx.load(path))
    ranges = Calibration(path, kinds, batches, cache).ranges("min-max")
    # In seven bits no sum overflows, which without VNNI depends on the order of the products.
    return quantised(onnx.load(path), ranges, seven_bits=True)


def noise(images: int, patch_size: int) -> np.ndarray:
    return np.random.default_rng(images).integers(0, 256, (images * D, patch_size, patch_size, 3), dtype=np.uint8)


def answers(model: onnx.ModelProto | bytes, patches: np.ndarray) -> list[Any]:
    """Return the features and scores of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    cache = {"exemplar_hidden": np.ones((2, C), np.float32), "exemplar_labels": np.ones(2, np.float32)}
    return session.run(["features", "score"], {"patches": patches, **cache})


def exact_scores(model: onnx.ModelProto, images: Iterable[np.ndarray], exemplars: Exemplars) -> np.ndarray:
    """Compute scores in float from the rounded values, as exact integer sums would give them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    cache = {"exemplar_hidden": exemplars.hidden, "exemplar_labels": exemplars.labels}
    return np.concatenate([session.run(["score"], {"patches": image, **cache})[0] for image in images])
