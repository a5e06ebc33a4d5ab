"""Stores weights in 16 bits where that loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LEAST_VALUES = 1024
_STORED = "_in_16_bits"


def store_exact_halves(path: Path) -> int:
    """Store FP32 weights of a graph as FP16, with a cast back, if every value is the same in both.

    Scores stay the same to the bit: runtimes cast constants once, when they load the graph. `pscr_training.rounding`
    makes such weights; those of other checkpoints are left as they are.

    Args:
        path: the .onnx file; it is changed in place.

    Returns:
        How many bytes smaller the file has become.
    """
    model = onnx.load(path)
    graph, before = model.graph, path.stat().st_size
    casts = []
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST_VALUES:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        stored = tensor.name + _STORED
        casts.append(helper.make_node("Cast", [stored], [tensor.name], f"cast_{tensor.name}", to=TensorProto.FLOAT))
        graph.initializer[index].CopyFrom(numpy_helper.from_array(halves, stored))
    if casts:
        nodes = list(graph.node)
        del graph.node[:]
        graph.node.extend([*casts, *nodes])
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
    return before - path.stat().st_size
