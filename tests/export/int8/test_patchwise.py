import numpy as np
import pytest
import torch
from pscr_export.int8 import patchwise
from pscr_export.int8.patchwise import patch_by_patch
from torch import nn

from .quantised_graph import C, answers, noise, quantised_graph

P = 32


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
    return quantised_graph(tmp_path_factory.mktemp("graph"), trunk(), P)


def scan_of(model):
    (scan,) = (node for node in model.graph.node if node.op_type == "Scan")
    return next(attribute.g for attribute in scan.attribute if attribute.name == "body")


@pytest.mark.medium
@pytest.mark.parametrize("images", [1, 2, 5])
def test_scores_stay_the_same_to_the_bit(model, images):
    changed = patch_by_patch(model)
    assert scan_of(changed).node
    patches = noise(images, P)
    for before, after in zip(answers(model, patches), answers(changed, patches), strict=True):
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
