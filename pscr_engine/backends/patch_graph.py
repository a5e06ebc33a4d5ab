"""A scoring graph in two halves: patches to features, each on its own, and an image's features to its score."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BackendError, MissingDependencyError, one_line

MODEL_INPUTS = ("exemplar_hidden", "exemplar_labels")


class Halves(NamedTuple):
    """Both halves of a scoring graph, as serialised ONNX.

    Args:
        trunk: `patches` uint8 [N, P, P, 3] → `patch_features` float32 [N, C] or [N, C, 1, 1], for any N.
        head: `mean_features` float32 [B, C], `exemplar_hidden`, `exemplar_labels` → `score`, `exemplar_scores` and
            `features`, which are the mean, in INT8 with the roundings' means taken off.
    """

    trunk: bytes
    head: bytes


def halve(graph: Path) -> Halves:
    """Cut a bundle's scoring graph where the features of an image's patches are averaged.

    Args:
        graph: the .onnx file, whose `features` come from the mean over the second axis of [B, D, C].

    Raises:
        MissingDependencyError: onnx is not installed.
        BackendError: the graph doesn't have this form.
    """
    try:
        import onnx
        from onnx.utils import Extractor
    except ImportError as error:
        raise MissingDependencyError("onnx", "scoring with some of the patches", "cpu,early") from error
    try:
        model = onnx.load(graph)
        makers = {output: node for node in model.graph.node for output in node.output}
        mean = makers["features"]
        while mean.op_type in ("Add", "Mul"):  # of INT8, by channel
            mean = makers[mean.input[0]]
        stacked = makers[mean.input[0]]
        if (mean.op_type, stacked.op_type) != ("ReduceMean", "Reshape"):
            raise ValueError(f"features come from {stacked.op_type} and {mean.op_type}")
        per_patch, averaged = stacked.input[0], mean.output[0]
        known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
        for name in {per_patch, averaged} - known:
            model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        trunk = Extractor(model).extract_model(["patches"], [per_patch])
        outputs = ["score", "exemplar_scores", *(["features"] if averaged != "features" else [])]
        head = Extractor(model).extract_model([averaged, *MODEL_INPUTS], outputs)
        _rename(trunk, per_patch, "patch_features")
        _rename(head, averaged, "mean_features")
        return Halves(trunk.SerializeToString(), head.SerializeToString())
    except Exception as error:
        raise BackendError(
            f"{graph}: can't be cut into patches and images ({one_line(error, 200)}); export the bundle anew"
        ) from error


def _rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.name == old:
            value.name = new
