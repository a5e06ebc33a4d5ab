"""A bundle small enough to make and run in milliseconds, without PyTorch: its trunk averages colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from pscr_engine.atomic import atomic_directory
from pscr_engine.bundle import Bundle, BundleInfo, Exemplars, Graph, Parity, write_contents
from pscr_engine.sampling import Sampling

C, P = 8, 32
W_TRUNK = np.random.default_rng(0).normal(size=(3, C)).astype(np.float32)
W_QUERY = np.random.default_rng(1).normal(size=(C, C)).astype(np.float32)
W_DELTA = np.random.default_rng(2).normal(size=(C,)).astype(np.float32)


def make_bundle(
    path: Path, *, sampling: str = "ops", exemplars: int = 5, precisions: tuple[str, ...] = ("fp32",)
) -> Bundle:
    """Write a tiny bundle with made-up exemplars, and open it."""
    chosen = Sampling.create(sampling, P)
    rng = np.random.default_rng(3)
    cache = Exemplars(
        hidden=rng.normal(size=(exemplars, C)).astype(np.float32),
        labels=rng.uniform(1, 5, exemplars).astype(np.float32),
        features=rng.normal(size=(exemplars, C)).astype(np.float32),
    )
    parity = Parity(exemplars, 1e-7, 1e-8, 1.0, 4e-4, None)
    info = BundleInfo(
        backbone="tiny",
        feature_size=C,
        patch_size=P,
        sampling=chosen,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        label_range=(1.0, 5.0),
        exemplars={"count": exemplars, "source": "made up"},
        graphs={name: Graph(f"scorer.{name}.onnx", 17, parity) for name in precisions},
    )
    with atomic_directory(path) as folder:
        for name in precisions:
            onnx.save(_graph(chosen.patches), folder / f"scorer.{name}.onnx")
        listed = {"path": ["x"] * exemplars, "sha256": ["0" * 64] * exemplars, "mos": cache.labels}
        pq.write_table(pa.table(listed), folder / "exemplars.parquet")
        write_contents(folder, info, cache)
    return Bundle.open(path)


def expected_score(bundle: Bundle, pixels: np.ndarray, digest: bytes = b"") -> float:
    """Compute the tiny network's score of an image in NumPy."""
    sampling = bundle.info.sampling
    patches = np.empty((sampling.patches, P, P, 3), np.uint8)
    sampling.sample(pixels, patches, digest=digest)
    features = (patches.astype(np.float64).mean((1, 2)) / 255 @ W_TRUNK).mean(0)
    hidden = np.maximum(features @ W_QUERY + bundle.exemplars.hidden, 0)
    return float((bundle.exemplars.labels + hidden @ W_DELTA).mean())


def _graph(D: int) -> onnx.ModelProto:
    def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    nodes = [
        helper.make_node("Cast", ["patches"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["colour"], axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["colour", "255"], ["unit"]),
        helper.make_node("MatMul", ["unit", "w_trunk"], ["trunk"]),
        helper.make_node("Reshape", ["trunk", "by_image"], ["grouped"]),
        helper.make_node("ReduceMean", ["grouped"], ["features"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["features", "w_query"], ["query"]),
        helper.make_node("Unsqueeze", ["query", "one"], ["query_1"]),
        helper.make_node("Add", ["query_1", "exemplar_hidden"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w_delta"], ["delta"]),
        helper.make_node("Add", ["delta", "exemplar_labels"], ["exemplar_scores"]),
        helper.make_node("ReduceMean", ["exemplar_scores"], ["score"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("patches", TensorProto.UINT8, [None, P, P, 3]),
            helper.make_tensor_value_info("exemplar_hidden", TensorProto.FLOAT, ["M", C]),
            helper.make_tensor_value_info("exemplar_labels", TensorProto.FLOAT, ["M"]),
        ],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"]),
            helper.make_tensor_value_info("exemplar_scores", TensorProto.FLOAT, ["B", "M"]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", C]),
        ],
        [
            constant("255", np.float32(255)),
            constant("one", np.array([1])),
            constant("by_image", np.array([-1, D, C])),
            constant("w_trunk", W_TRUNK),
            constant("w_query", W_QUERY),
            constant("w_delta", W_DELTA),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model
