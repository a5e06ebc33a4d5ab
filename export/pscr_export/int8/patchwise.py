"""Makes a graph compute the beginning of its trunk patch by patch: large activations then stay in a core's cache.

A batch of nine patches writes 7 MB after ResNet-18's first convolution and reads it back for the next operator; one
patch writes 0.8 MB. Towards the end it is the other way round: activations are small, and weights are large and are
better read once for many patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

PATCHES = "patches"
_INSIDE = "_of_one"
# Weights that each patch reads anew: they share the core's second-level cache, a megabyte or two, with activations.
_MOST_WEIGHT_BYTES = 3 * 2**19


def patch_by_patch(model: ModelProto) -> ModelProto:
    """Return `model` with a Scan over patches in place of the trunk's beginning, as far as its weights are small.

    The operators stay the same, and so do the scores to the bit. A model without a tensor at which
    the Scan can end is returned as it is.

    Args:
        model: quantised, with an input "patches", uint8 [N, P, P, 3].
    """
    shapes = _shapes(model)
    end = _end(model, shapes)
    if end is None:
        return model
    value = shapes[end]
    model = deepcopy(model)
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    inside = _ancestors(producers, [end])
    names = {node.name for node in inside}
    outside = [node for node in graph.node if node.name not in names]
    # Operators outside read the number of patches from tensors inside, too: what computes these also stays outside.
    produced = {name for node in inside for name in node.output}
    read_outside = [name for node in outside for name in node.input if name in produced and name != end]
    kept = {node.name for node in _ancestors(producers, read_outside)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    used = {name for node in inside for name in node.input if name in constants}
    scan = helper.make_node(
        "Scan", [PATCHES], [end], "patch_by_patch", body=_body(model, inside, end, value, [constants[n] for n in used]),
        num_scan_inputs=1,
    )  # fmt: skip
    remaining = _in_order(model, [scan, *(node for node in graph.node if node.name not in names or node.name in kept)])
    needed = {name for node in remaining for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(remaining)
    graph.initializer.extend(initializers)
    onnx.checker.check_model(model, full_check=True)
    return model


def _body(
    model: ModelProto, inside: list[NodeProto], end: str, value: ValueInfoProto, constants: list[TensorProto]
) -> onnx.GraphProto:
    """Build the Scan's body: it computes from one patch, [P, P, 3], its part of `end`, without the first axis."""
    (patches,) = (each for each in model.graph.input if each.name == PATCHES)
    side, shape = [d.dim_value for d in patches.type.tensor_type.shape.dim[1:]], value.type.tensor_type
    produced = {name for node in inside for name in node.output} | {PATCHES}
    nodes = [helper.make_node("Unsqueeze", ["patch", "first_axis"], [PATCHES + _INSIDE], "one_patch")]
    for node in inside:
        copied = deepcopy(node)
        copied.name += _INSIDE
        copied.input[:] = [name + _INSIDE if name in produced else name for name in node.input]
        copied.output[:] = [name + _INSIDE for name in node.output]
        nodes.append(copied)
    nodes.append(helper.make_node("Squeeze", [end + _INSIDE, "first_axis"], ["out"], "of_one_patch"))
    return helper.make_graph(
        nodes,
        "one patch",
        [helper.make_tensor_value_info("patch", TensorProto.UINT8, side)],
        [helper.make_tensor_value_info("out", shape.elem_type, [d.dim_value for d in shape.shape.dim[1:]])],
        [*constants, numpy_helper.from_array(np.array([0]), "first_axis")],
    )


def _shapes(model: ModelProto) -> dict[str, ValueInfoProto]:
    inferred = shape_inference.infer_shapes(model)
    return {value.name: value for value in inferred.graph.value_info}


def _end(model: ModelProto, shapes: dict[str, ValueInfoProto]) -> str | None:
    """Return the last tensor at which the Scan can end, or None.

    It is uint8 [N, channels, height, width], all paths from the patches lead through it, and few weights come before.
    """
    constants = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    end = None
    for name in _bottlenecks(model):
        dimensions = shapes[name].type.tensor_type.shape.dim if name in shapes else []
        known = [d.dim_value for d in dimensions[1:]]
        if len(known) != 3 or not all(known) or shapes[name].type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        weights = {input for node in _ancestors(producers, [name]) for input in node.input}
        if sum(constants.get(each, 0) for each in weights) > _MOST_WEIGHT_BYTES:
            break
        end = name
    return end


def _bottlenecks(model: ModelProto) -> Iterator[str]:
    """Yield, in order, the tensors through which all paths from the patches' values lead."""
    graph = model.graph
    last = {name: index for index, node in enumerate(graph.node) for name in node.input if node.op_type != "Shape"}
    values, open_until = {PATCHES}, last[PATCHES]
    for index, node in enumerate(graph.node):
        if node.op_type == "Shape" or not values.intersection(node.input):
            continue
        values.update(node.output)
        (output, *rest) = node.output
        if open_until <= index and not rest:
            yield output
        open_until = max(open_until, *(last.get(name, len(graph.node)) for name in node.output))


def _ancestors(producers: dict[str, NodeProto], names: list[str]) -> list[NodeProto]:
    """Return the operators that compute `names`, each after those that it needs."""
    ordered: dict[str, NodeProto] = {}
    stack = [producers[name] for name in names if name in producers]
    while stack:
        node = stack[-1]
        missing = [producers[n] for n in node.input if n in producers and producers[n].name not in ordered]
        if missing:
            stack.extend(missing)
            continue
        ordered.setdefault(stack.pop().name, node)
    return list(ordered.values())


def _in_order(model: ModelProto, nodes: list[NodeProto]) -> list[NodeProto]:
    producers = {name: node for node in nodes for name in node.output}
    return _ancestors(producers, [name for node in nodes for name in node.output])
