"""The graph that `export` arranges for ONNX Runtime, as OpenVINO gets it, and what both engines make of it."""

import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from pscr_export.int8.patchwise import patch_by_patch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from pscr_engine.backends.openvino_graph import arranged
from pscr_engine.errors import MissingDependencyError

from .quantised_graph import C, answers, noise, quantised_graph

pytestmark = pytest.mark.medium

# Kernel, stride, padding of the first convolution, and the size of patches: with and without columns to cut off.
SHAPES = [(7, 2, 3, 32), (7, 2, 3, 45), (3, 1, 1, 33), (3, 2, 0, 34), (5, 1, 2, 32)]


def trunk(first: nn.Conv2d) -> nn.Module:
    pooled = [nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, C, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(first, nn.ReLU(), *pooled)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return quantised_graph(tmp_path_factory.mktemp("graph"), trunk(nn.Conv2d(3, 8, 7, 2, 3)), 32)


def kernels(model):
    """Return the shapes of its convolutions' weights, the first one's first."""
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.data_type == 3]
    return sorted((tuple(tensor.dims) for tensor in weights), reverse=True)


def arranged_model(model, folder):
    (folder / "graph.onnx").write_bytes(patch_by_patch(model).SerializeToString())
    made = onnx.load_from_string(arranged(folder / "graph.onnx"))
    onnx.checker.check_model(made, full_check=True)
    assert not [node for node in made.graph.node if node.op_type == "Scan"]
    return made


def check(model, made, patch_size):
    for images in (1, 4):
        patches = noise(images, patch_size)
        for before, after in zip(answers(model, patches), answers(made, patches), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("kernel", "stride", "padding", "patch_size"), SHAPES)
def test_the_first_convolution_gets_three_channels_and_scores_stay(tmp_path, kernel, stride, padding, patch_size):
    model = quantised_graph(tmp_path, trunk(nn.Conv2d(3, 8, kernel, stride, padding)), patch_size)
    assert kernels(model)[0][1] == 12
    made = arranged_model(model, tmp_path)
    assert kernels(made) == [(8, 3, kernel, kernel), (C, 8, 3, 3)]
    check(model, made, patch_size)


def test_padding_as_tensorflow_pads(tmp_path):
    model = quantised_graph(tmp_path, trunk(Conv2dSame(3, 8, 3, 2)), 32)
    made = arranged_model(model, tmp_path)
    assert kernels(made)[0] == (8, 3, 3, 3)
    check(model, made, 32)


def test_columns_that_are_no_copies_of_each_other_stay(model, tmp_path):
    model = onnx.ModelProto.FromString(model.SerializeToString())
    (weights,) = (each for each in model.graph.initializer if list(each.dims)[1:2] == [12] and len(each.dims) == 4)
    changed = onnx.numpy_helper.to_array(weights).copy()
    changed[-1, -1, 0, 0] += 1
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    made = arranged_model(model, tmp_path)
    assert kernels(made) == kernels(model)
    check(model, made, 32)


def test_columns_with_scales_of_their_own_stay(model, tmp_path):
    model = onnx.ModelProto.FromString(model.SerializeToString())
    (scales,) = (each for each in model.graph.initializer if each.name == "first.convolution.weight_scale")
    changed = onnx.numpy_helper.to_array(scales).copy()
    changed[-1] *= 1.5
    scales.CopyFrom(onnx.numpy_helper.from_array(changed, scales.name))
    assert kernels(arranged_model(model, tmp_path)) == kernels(model)


def test_a_first_convolution_that_is_plain_stays(tmp_path):
    model = quantised_graph(tmp_path, trunk(nn.Conv2d(3, 8, 4, 4)), 32)
    made = arranged_model(model, tmp_path)
    assert kernels(made) == kernels(model)
    check(model, made, 32)


def test_a_graph_in_float_stays_as_it_is(tiny):
    assert arranged(tiny.graph_path("fp32")) == tiny.graph_path("fp32").read_bytes()


def test_both_engines_compute_every_convolution_in_integers(model, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (optimised["QLinearConv"], optimised["Conv"], optimised["FusedConv"]) == (2, 0, 0)

    core = openvino.Core()
    for content in (model.SerializeToString(), arranged_model(model, tmp_path).SerializeToString()):
        compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        kinds = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
        convolutions = [kind["primitiveType"].value for kind in kinds if kind["layerType"].value == "Convolution"]
        assert len(convolutions) == 2
        assert all(primitive.lower().endswith("_i8") for primitive in convolutions), convolutions


def test_without_onnx_it_is_one_line(model, tmp_path, monkeypatch):
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    monkeypatch.setitem(sys.modules, "onnx.utils", None)
    with pytest.raises(
        MissingDependencyError, match=r"^scoring INT8 with OpenVINO needs onnx: pip install .*cpu,openvino"
    ):
        arranged(tmp_path / "graph.onnx")
