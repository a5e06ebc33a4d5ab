"""Writes the scoring network as an ONNX graph."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import Dim

from pscr_engine.errors import PscrError, one_line, option

from .network import ScoringNetwork
from .ranges import Range

OPSETS = Range(18, 23)
"""Those that PyTorch's exporter can write: its own, to which it doesn't convert down, up to its largest."""


def export_graph(network: ScoringNetwork, patch_size: int, path: Path, opset: int | None = None) -> int:
    """Export `network` to `path`, with B and M dynamic, and check the result.

    Args:
        network: the scoring network.
        patch_size: P.
        path: the .onnx file to write.
        opset: ONNX opset; None for the exporter's default.

    Returns:
        The opset of the graph.

    Raises:
        PscrError: the exporter or the checker refuses, or the graph can't have this opset.
    """
    D, P, C = network.patches, patch_size, network.feature_size
    B, M = Dim("B"), Dim("M")
    example = (
        torch.zeros((2 * D, P, P, 3), dtype=torch.uint8),
        torch.zeros((3, C)),
        torch.zeros(3),
    )
    # The exporter reports on its own workings, to stdout and as warnings; failures are exceptions.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(),
                example,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=["patches", "exemplar_hidden", "exemplar_labels"],
                output_names=["score", "exemplar_scores", "features"],
                dynamic_shapes={
                    "patches": {0: D * B if D > 1 else B},
                    "exemplar_hidden": {0: M},
                    "exemplar_labels": {0: M},
                },
            )
        assert program is not None
        _tidy(program.model)
        program.save(str(path), external_data=False)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise PscrError(f"ONNX export failed: {type(error).__name__}: {one_line(error, 300)}") from error
    written = int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))
    if opset not in (None, written):  # where the exporter can't convert a graph, it leaves it as it is
        raise PscrError(
            f"{option('--opset')} {opset}: the exporter can't convert this graph, it wrote {written}; leave it out"
        )
    return written


def _tidy(model: Any) -> None:
    """Name the batch axis of the outputs, and drop metadata that holds this machine's paths.

    Operators that read the shape of the uint8 input read it from its cast: TensorRT lets only a cast read uint8.
    """
    patches = next(value for value in model.graph.inputs if value.name == "patches")
    cast = next((node for node in patches.consumers() if node.op_type == "Cast"), None)
    if cast is not None:
        for node, index in list(patches.uses()):
            if node is not cast:
                node.replace_input_with(index, cast.outputs[0])
    model.graph.sort()
    for output in model.graph.outputs:
        shape = list(output.shape)
        output.shape = type(output.shape)(["B", *shape[1:]])
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
