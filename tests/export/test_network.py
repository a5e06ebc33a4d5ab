import numpy as np
import pytest
import torch
from pscr_export.checkpoint import Checkpoint
from pscr_export.network import MEAN, STD, ScoringNetwork, exemplar_hidden, reference_scores, slice_channels
from torch import nn

from .small import small_checkpoint


@pytest.mark.parametrize("exemplars", [None, 1, 7, 1000])
@pytest.mark.parametrize("C", [5, 16, 40])
def test_the_factorised_head_equals_the_concatenated_one(C, exemplars):
    checkpoint = small_checkpoint(C)
    network = ScoringNetwork(checkpoint.trunk, checkpoint, patches=4, exemplars=exemplars).eval()
    patches = torch.randint(0, 256, (3 * 4, 8, 8, 3), dtype=torch.uint8)
    exemplars, labels = torch.randn(7, C), torch.rand(7) * 5
    score, exemplar_scores, features = network(patches, exemplar_hidden(checkpoint, exemplars), labels)
    assert score.shape == (3,)
    assert exemplar_scores.shape == (3, 7)
    assert torch.allclose(score, reference_scores(checkpoint, features, exemplars, labels), atol=1e-5)
    # Query first, exemplar second, label plus delta: written out for one pair.
    pair = torch.cat([features[1], exemplars[2]])
    delta = checkpoint.fc2_weight @ torch.relu(checkpoint.fc1_weight @ pair + checkpoint.fc1_bias) + checkpoint.fc2_bias
    assert exemplar_scores[1, 2].item() == pytest.approx((labels[2] + delta).item(), abs=1e-5)


def test_features_are_the_mean_over_patches_of_normalised_pixels():
    checkpoint = small_checkpoint(3, trunk=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    network = ScoringNetwork(checkpoint.trunk, checkpoint, patches=2).eval()
    patches = torch.randint(0, 256, (4, 6, 6, 3), dtype=torch.uint8)
    expected = ((patches.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).mean((1, 2)).reshape(2, 2, 3).mean(1)
    assert np.allclose(network.features(patches).numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(("C", "M", "channels"), [(512, 10, 512), (2048, 10, 1638), (1280, 200, 81), (512, 1024, 16)])
def test_few_exemplars_need_few_slices_of_the_head(C, M, channels):
    assert slice_channels(C, M) == channels
    assert channels * M <= 16 * 1024
    assert slice_channels(C, 100_000) == slice_channels(C, None) == 16
    assert slice_channels(8, None) == slice_channels(8, M) == 8


@pytest.mark.parametrize("exemplars", [None, 500])
def test_the_head_never_holds_a_product_of_b_m_and_c(exemplars):
    checkpoint = small_checkpoint(256)
    network = ScoringNetwork(checkpoint.trunk, checkpoint, patches=1, exemplars=exemplars).eval()
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    B, M, C = 8, 500, 256
    with torch.no_grad(), Watch():
        network(torch.zeros(B, 8, 8, 3, dtype=torch.uint8), torch.zeros(M, C), torch.zeros(M))
    assert largest <= max(M * C, B * M * 16 if exemplars is None else B * 16 * 1024)


def test_checkpoint_type_is_what_the_network_reads():
    assert isinstance(small_checkpoint(4), Checkpoint)
