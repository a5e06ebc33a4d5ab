import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pscr_export.graph import export_graph
from pscr_export.int8 import patchwise
from pscr_export.int8.calibration import Calibration
from pscr_export.int8.graph import operators, quantised
from pscr_export.int8.patchwise import patch_by_patch
from pscr_export.int8.pixels import PixelNetwork
from torch import nn

from pscr_engine.bundle import Exemplars

from ..small import small_checkpoint

C, P, D = 6, 32, 3


class Residual(nn.Module):
    """Two convolutions and a way around them: inside, there is no single tensor that all goes through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return torch.relu(x + self.two(torch.relu(self.one(x))))


def trunk() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        Residual(8),
        nn.Conv2d(8, C, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Make a quantised scoring graph of a small network."""
    checkpoint = small_checkpoint(C, trunk())
    network = PixelNetwork(checkpoint.trunk, checkpoint, patches=D).eval()
    path = tmp_path_factory.mktemp("graph") / "float.onnx"
    export_graph(network, P, path, None)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (D, P, P, 3), dtype=np.uint8) for _ in range(4)]
    cache = Exemplars(*(rng.normal(size=shape).astype(np.float32) for shape in ((2, C), (2,), (2, C))))
    kinds = operators(onnx.load(path))
    return quantised(onnx.load(path), Calibration(path, kinds, batches, cache).ranges("min-max"))


def features(model, patches):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    cache = {"exemplar_hidden": np.ones((2, C), np.float32), "exemplar_labels": np.ones(2, np.float32)}
    return session.run(["features", "score"], {"patches": patches, **cache})


def scan_of(model):
    (scan,) = (node for node in model.graph.node if node.op_type == "Scan")
    return next(attribute.g for attribute in scan.attribute if attribute.name == "body")


@pytest.mark.medium
@pytest.mark.parametrize("images", [1, 2, 5])
def test_scores_stay_the_same_to_the_bit(model, images):
    patches = np.random.default_rng(1).integers(0, 256, (images * D, P, P, 3), dtype=np.uint8)
    changed = patch_by_patch(model)
    assert scan_of(changed).node
    for before, after in zip(features(model, patches), features(changed, patches), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.medium
def test_it_ends_where_the_weights_before_it_would_be_too_many(model, monkeypatch):
    def convolutions():
        return sum(node.op_type == "Conv" for node in scan_of(patch_by_patch(model)).node)

    assert convolutions() == 4
    # All but the last convolution's, with little to spare; then less than the residual's.
    monkeypatch.setattr(patchwise, "_MOST_WEIGHT_BYTES", 3300)
    assert convolutions() == 3, "the residual is inside as a whole"
    monkeypatch.setattr(patchwise, "_MOST_WEIGHT_BYTES", 2400)
    assert convolutions() == 1, "or outside as a whole"


@pytest.mark.medium
def test_the_model_given_is_left_alone_and_its_size_stays(model):
    before = model.SerializeToString()
    after = patch_by_patch(model)
    assert model.SerializeToString() == before
    assert after.ByteSize() < 1.3 * model.ByteSize() + 20_000
    outside = {tensor.name for tensor in after.graph.initializer}
    inside = {tensor.name for tensor in scan_of(after).initializer if len(tensor.raw_data) > 64}
    assert not outside & inside, "weights are held once"


@pytest.mark.medium
def test_a_model_without_a_place_to_end_is_returned_as_it_is(model, monkeypatch):
    monkeypatch.setattr(patchwise, "_MOST_WEIGHT_BYTES", 0)
    assert patch_by_patch(model) is model
