"""Inserts QuantizeLinear and DequantizeLinear into a float graph on pixels, by a range per activation."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from .pixels import CENTRE

_CONVOLUTIONAL = (
    "Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat",
    "Reshape", "Transpose", "Slice",
)  # fmt: skip
_TRANSFORMER = ("Conv", "Gemm", "MatMul")


def operators(model: ModelProto) -> list[str]:
    """Return the operator types to quantise: in a transformer only products with weights, the rest loses too much."""
    transformer = any(node.op_type in ("LayerNormalization", "Softmax") for node in model.graph.node)
    return list(_TRANSFORMER if transformer else _CONVOLUTIONAL)


def quantised(
    model: ModelProto, ranges: TensorsData, left_in_float: Collection[str] = (), *, seven_bits: bool = False
) -> ModelProto:
    """Quantise the trunk of `model`: uint8 activations, int8 weights per channel, pixels as they are.

    Args:
        model: float graph of a `PixelNetwork`; it is changed.
        ranges: range of each activation.
        left_in_float: names of convolutions and products that stay in FP32, and with them what only they lead to.
        seven_bits: whether weights are from -64 to 64: two products of theirs with bytes always fit into 16 bits.
    """
    wanted = operators(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    entrance = _Entrance.of(model)
    in_float = {entrance.layout.name, *left_in_float, *_after_float(model, left_in_float)}
    chosen = [
        node.name
        for node in _trunk(model)
        if node.op_type in wanted
        and node.name not in in_float
        and (node.op_type not in ("MatMul", "Gemm") or node.input[1] in weights)
    ]
    as_they_are = {
        "scale": np.array(1, np.float32),
        "zero_point": np.array(CENTRE, np.uint8),
        "quant_type": QuantType.QUInt8,
    }
    with _quietly():
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=seven_bits,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=wanted,
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "TensorQuantOverrides": {entrance.layout.output[0]: [as_they_are]},
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    result: ModelProto = quantizer.model.model
    _take_bytes(result, _Entrance.of(result))
    onnx.checker.check_model(result, full_check=True)
    return result


@dataclass(frozen=True, slots=True)
class WeightedNode:
    """A convolution of a trunk, or a product with weights.

    Args:
        name: of the node.
        convolution: whether it is one.
        weights: how many it has.
        input: name of the tensor that it reads.
        output: name of the tensor that it writes.
        reads_pixels: whether its input is made of pixels only, which are whole numbers already.
        activated: whether an activation function follows that is computed with it.
        bias_comes_after: whether another node adds its bias.
        sources: names of the nodes of this kind that its input comes from, as far as what is between them is
            quantised, too.
    """

    name: str
    convolution: bool
    weights: int
    input: str
    output: str
    reads_pixels: bool
    activated: bool
    bias_comes_after: bool
    sources: frozenset[str]


def weighted_nodes(model: ModelProto) -> list[WeightedNode]:
    """Return the convolutions and products with weights of a float graph's trunk, in the order of computation."""
    sizes = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    sources, between = _sources(model), set(operators(model))
    nodes = []
    for node in _trunk(model):
        if not _has_weights(node, sizes):
            continue
        readers = _consumers(model, node.output[0])
        nodes.append(
            WeightedNode(
                str(node.name),
                node.op_type == "Conv",
                sizes[node.input[1]],
                str(node.input[0]),
                str(node.output[0]),
                reads_pixels=not sources[node.input[0]],
                activated=all(reader.op_type in ("Relu", "Clip") for reader in readers),
                bias_comes_after=len(node.input) < 3,
                sources=sources[node.input[0]] if "Relu" in between else frozenset(),
            )
        )
    return nodes


def _has_weights(node: NodeProto, weights: Collection[str]) -> bool:
    return node.op_type in _TRANSFORMER and node.input[1] in weights


def _sources(model: ModelProto) -> dict[str, frozenset[str]]:
    """Return for each tensor which of the nodes with weights it comes from, without any other such node between."""
    weights = {tensor.name for tensor in model.graph.initializer}
    sources: dict[str, frozenset[str]] = {}
    for node in model.graph.node:  # in the order of computation
        if _has_weights(node, weights):
            of_node = frozenset([str(node.name)])
        else:
            of_node = frozenset().union(*(sources.get(name, frozenset()) for name in node.input))
        sources.update(dict.fromkeys(map(str, node.output), of_node))
    return sources


def _after_float(model: ModelProto, left_in_float: Collection[str]) -> set[str]:
    """Return the nodes without weights whose inputs all come from nodes that stay in float."""
    kept, sources = set(left_in_float), _sources(model)
    return {
        str(node.name)
        for node in model.graph.node
        if node.name not in kept and node.output and sources[node.output[0]] and sources[node.output[0]] <= kept
    }


class _Entrance(NamedTuple):
    """The operators between the uint8 pixels and the first convolution: cast, subtraction, transposition."""

    cast: NodeProto
    centred: NodeProto
    layout: NodeProto

    @classmethod
    def of(cls, model: ModelProto) -> _Entrance:
        cast = next(node for node in model.graph.node if node.op_type == "Cast")
        # Transformers also read its shape, for the number of class tokens.
        (centred,) = [node for node in _consumers(model, cast.output[0]) if node.op_type != "Shape"]
        (layout,) = _consumers(model, centred.output[0])
        assert (centred.op_type, layout.op_type) == ("Sub", "Transpose"), (centred.op_type, layout.op_type)
        return cls(cast, centred, layout)


def _take_bytes(model: ModelProto, entrance: _Entrance) -> None:
    """Let the first convolution read the pixels: they are quantised values already, of scale 1 and a zero point.

    They are dequantised before they are transposed: OpenVINO computes a convolution in float whose bytes are transposed
    before. ONNX Runtime computes the same either way.
    """
    graph, (cast, centred, layout) = model.graph, entrance
    (quantize,) = _consumers(model, layout.output[0])
    if quantize.op_type != "QuantizeLinear":  # the first convolution stays in float
        return
    (dequantize,) = _consumers(model, quantize.output[0])
    for node in _consumers(model, cast.output[0]):
        if node.op_type == "Shape":
            node.input[0] = cast.input[0]
    transposed = dequantize.output[0]
    dequantize.input[0], dequantize.output[0] = cast.input[0], centred.output[0]
    layout.output[0] = transposed
    stale = {cast.output[0], centred.output[0], quantize.output[0], quantize.input[0], transposed}
    for node in (cast, centred, quantize, dequantize):
        graph.node.remove(node)
    graph.node.insert(list(graph.node).index(layout), dequantize)
    for value in [value for value in graph.value_info if value.name in stale]:
        graph.value_info.remove(value)


def _trunk(model: ModelProto) -> list[NodeProto]:
    """Return the operators that `features` is computed from."""
    producers = {name: node for node in model.graph.node for name in node.output}
    needed, left = set(), ["features"]
    while left:
        node = producers.get(left.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            left += node.input
    return [node for node in model.graph.node if node.name in needed]


def _consumers(model: ModelProto, name: str) -> list[NodeProto]:
    return [node for node in model.graph.node if name in node.input]


@contextmanager
def _quietly() -> Iterator[None]:
    """Block log messages up to warnings: the quantiser logs what is chosen on purpose, on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def with_features_corrected(model: ModelProto, slope: NDArray[np.float32], shift: NDArray[np.float32]) -> ModelProto:
    """Correct the features of `model`: each times `slope` plus `shift`, float32 [C] both; `model` is changed."""
    graph = model.graph
    position, producer = next((i, n) for i, n in enumerate(graph.node) if "features" in n.output)
    producer.output[list(producer.output).index("features")] = "features_rounded"
    for name, value in (("features_slope", slope), ("features_shift", shift)):
        graph.initializer.append(numpy_helper.from_array(value, name))
    scaled = helper.make_node("Mul", ["features_rounded", "features_slope"], ["features_scaled"], "scale_features")
    shifted = helper.make_node("Add", ["features_scaled", "features_shift"], ["features"], "shift_features")
    graph.node.insert(position + 1, shifted)
    graph.node.insert(position + 1, scaled)
    onnx.checker.check_model(model, full_check=True)
    return model
