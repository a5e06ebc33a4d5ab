"""Rearranges an INT8 scoring graph, which `export` arranges for ONNX Runtime, as OpenVINO computes it fastest.

The integers that are computed stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError

_LAYOUT = ("Transpose", "Reshape", "Slice", "QuantizeLinear", "DequantizeLinear")


def arranged(graph: Path) -> bytes:
    """Read a scoring graph, without its loop over patches and with a first convolution of three channels.

    Args:
        graph: the .onnx file; a graph in float is returned as it is.

    Returns:
        A serialised ONNX model that gives the same scores.

    Raises:
        MissingDependencyError: onnx is not installed, and the graph is in INT8.
        OSError: the file can't be read.
    """
    content = graph.read_bytes()
    if b"DequantizeLinear" not in content:
        return content
    try:
        import onnx
        from onnx.utils import Extractor
    except ImportError as error:
        raise MissingDependencyError("onnx", "scoring INT8 with OpenVINO", "cpu,openvino") from error
    model = onnx.load_from_string(content)
    _without_scan(model)
    _with_plain_convolution(model)
    needed = Extractor(model).extract_model(
        *([each.name for each in of] for of in (model.graph.input, model.graph.output))
    )
    return bytes(needed.SerializeToString())


def _without_scan(model: Any) -> None:
    """Put the operators of a Scan over patches in its place: they mean the same for one patch as for many."""
    top = model.graph
    for scan in [node for node in top.node if node.op_type == "Scan"]:
        (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
        first, *inside, last = body.node
        if (first.op_type, last.op_type) != ("Unsqueeze", "Squeeze"):
            continue
        names = {first.output[0]: scan.input[0], last.input[0]: scan.output[0]}
        at = list(top.node).index(scan)
        top.node.remove(scan)
        for offset, node in enumerate(inside):
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
            top.node.insert(at + offset, node)
        known = {tensor.name for tensor in top.initializer}
        top.initializer.extend(tensor for tensor in body.initializer if tensor.name not in known)


def _with_plain_convolution(model: Any) -> None:
    """Let the first convolution read three channels, where it reads four columns of them as twelve.

    The outputs of the columns are then in their places, which takes OpenVINO two transpositions. What looks otherwise
    than `pscr_export.int8.pixels` makes it stays as it is.
    """
    from onnx import helper, numpy_helper

    nodes = model.graph.node
    producers = {name: node for node in nodes for name in node.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def value(name: str) -> NDArray[Any]:
        return numpy_helper.to_array(tensors[name])

    def constant(name: str, array: NDArray[Any]) -> str:
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    convolution = next((node for node in nodes if node.op_type == "Conv"), None)
    chain = [] if convolution is None else _producers(producers, convolution.input[0], 3)
    if convolution is None or [node.op_type for node in chain] != ["Transpose", "DequantizeLinear", "Reshape"]:
        return
    _, pixels, grouped = chain
    weights, bias, *_ = [*(producers.get(name) for name in convolution.input[1:]), None]
    if weights is None or bias is None or any(_attribute(convolution, "pads")):
        return
    if not tensors.keys() >= {grouped.input[1], *weights.input, *bias.input}:
        return
    kernel, stride = value(weights.input[0]), _attribute(convolution, "strides")[0]
    _, rows, groups, channels = value(grouped.input[1])
    if channels != 12 or kernel.shape[1] != channels or 4 % stride or len(kernel) % (4 // stride):
        return
    if not all(value(name).shape == (len(kernel),) for name in (*weights.input[1:], *bias.input)):  # not by channel
        return
    outputs = 4 // stride
    plain = _plain_kernel(kernel, outputs, stride)
    height, width = (rows - kernel.shape[2]) // stride + 1, groups - kernel.shape[3] + 1
    if plain is None:
        return
    end = _in_places(model, convolution.output[0], (outputs, len(plain), height, width), value)
    if end is None:
        return
    dequantised, in_places, wanted = end
    first = {name: value(name)[: len(plain)] for name in (*weights.input[1:], *bias.input)}
    if not all(np.array_equal(value(name), np.tile(array, outputs)) for name, array in first.items()):
        return
    first[weights.input[0]] = plain
    for name, array in first.items():
        constant(f"{name}_plain", array)
    for node in (weights, bias):
        node.input[:] = [f"{name}_plain" for name in node.input]
    columns = (wanted - 1) * stride + plain.shape[3]
    bounds = [constant(f"columns_{what}", np.array([number])) for what, number in
              (("start", 0), ("end", columns), ("axis", 2))]  # fmt: skip
    cut = helper.make_node("Slice", [grouped.input[0], *bounds], ["pixels_plain"], "cut_columns")
    nodes.insert(list(nodes).index(grouped), cut)
    pixels.input[0] = "pixels_plain"
    _set(convolution, "strides", [stride, stride])
    _set(convolution, "kernel_shape", plain.shape[2:])
    for node in nodes:
        node.input[:] = [dequantised if name == in_places else name for name in node.input]
    del model.graph.value_info[:]  # shapes of what is gone


def _plain_kernel(kernel: NDArray[Any], outputs: int, stride: int) -> NDArray[Any] | None:
    """Return the kernel [C, 3, h, w] of three channels in one of twelve, [outputs · C, 12, h, groups], or None."""
    count, _, height, groups = kernel.shape
    # [output, C, column of the group, channel, h, group] → [output, C, channel, h, column]
    apart = kernel.reshape(outputs, count // outputs, 4, 3, height, groups).transpose(0, 1, 3, 4, 5, 2)
    apart = apart.reshape(outputs, count // outputs, 3, height, groups * 4)
    if not apart[0].any():
        return None
    used = int(np.flatnonzero(apart[0].any((0, 1, 2)))[-1]) + 1
    first = apart[0][..., :used]
    for output in range(outputs):
        expected = np.zeros_like(apart[0])
        end = output * stride + used
        if end > expected.shape[-1]:
            return None
        expected[..., output * stride : end] = first
        if not np.array_equal(apart[output], expected):
            return None
    return np.ascontiguousarray(first)


def _in_places(
    model: Any, name: str, shape: tuple[int, int, int, int], value: Callable[[str], NDArray[Any]]
) -> tuple[str, str, int] | None:
    """Follow the first convolution's output to where its columns are in their places.

    Args:
        model: the graph.
        name: the convolution's output, [1, outputs · C, height, width] of one patch.
        shape: outputs, C, height, width.
        value: gives a constant's array.

    Returns:
        The output once it is rounded and dequantised; the last tensor of the same values in their places,
        [1, C, height, columns], columns ≤ outputs · width; and the number of columns. None if there is no such tensor.
    """
    outputs, channels, height, width = shape
    places: NDArray[Any] = np.arange(outputs * channels * height * width).reshape(1, outputs * channels, height, width)
    wanted = places.reshape(outputs, channels, height, width).transpose(1, 2, 3, 0).reshape(1, channels, height, -1)
    constants = {tensor.name for tensor in model.graph.initializer}
    dequantised, found, roundings = None, None, set()
    while True:
        readers = [node for node in model.graph.node if name in node.input]
        if len(readers) != 1 or readers[0].op_type not in _LAYOUT:
            return found
        (node,) = readers
        if not constants.issuperset(node.input[1:]):
            return found
        name = node.output[0]
        if node.op_type == "Transpose":
            places = places.transpose(_attribute(node, "perm"))
        elif node.op_type == "Reshape":
            places = places.reshape(value(node.input[1]))
        elif node.op_type == "Slice":
            starts, ends, axes, steps = (value(each).tolist() for each in node.input[1:])
            for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
                places = places[(slice(None),) * axis + (slice(*bounds),)]
        else:
            roundings.add((float(value(node.input[1])), int(value(node.input[2]))))
            if node.op_type == "DequantizeLinear" and len(roundings) == 1:
                dequantised = dequantised or name
                if places.ndim == 4 and np.array_equal(places, wanted[..., : places.shape[-1]]):
                    found = dequantised, name, places.shape[-1]


def _producers(producers: dict[str, Any], name: str, count: int) -> list[Any]:
    """Return the last `count` operators that compute a tensor, each the first input of the one before."""
    found: list[Any] = []
    while len(found) < count and name in producers:
        found.append(producers[name])
        name = producers[name].input[0]
    return found


def _attribute(node: Any, name: str) -> list[int]:
    return next(list(attribute.ints) for attribute in node.attribute if attribute.name == name)


def _set(node: Any, name: str, values: Any) -> None:
    (attribute,) = (each for each in node.attribute if each.name == name)
    attribute.ints[:] = [int(number) for number in values]
