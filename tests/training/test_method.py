"""The loss and its gradients against the authors' formula, written out independently in float64."""

import numpy as np
import pytest
import torch
from pscr_export.backbones import BACKBONES, Backbone
from pscr_training.method import Model, all_pairs_loss, contrastive_loss, no_reference_loss
from torch import nn

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def small_trunk():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def small(method="contrastive"):
    torch.manual_seed(3)
    model = Model(Backbone("small", 6, 16, small_trunk, "0.weight"), method)
    return model.train()


def batch(D=4, B=3, P=16, seed=0):
    dice = np.random.default_rng(seed)
    images = [torch.from_numpy(dice.integers(0, 256, (B, D, P, P, 3), np.uint8)) for _ in range(2)]
    labels = [torch.from_numpy(dice.uniform(0, 5, B).astype(np.float32)) for _ in range(2)]
    return images[0], labels[0], images[1], labels[1]


def formula(model, a, s_a, b, s_b):
    """Compute loss and gradients in float64, image by image and pair by pair; only the trunk is a network."""
    double = small_trunk().double().train()
    double.load_state_dict({key: value.clone() for key, value in model.trunk.state_dict().items()})
    weights = {key: value.detach().double().requires_grad_() for key, value in model.regressor.state_dict().items()}
    pixels = np.concatenate([a.numpy(), b.numpy()]).astype(np.float64) / 255
    N, D = pixels.shape[:2]
    normalised = torch.from_numpy(((pixels - MEAN) / STD).transpose(0, 1, 4, 2, 3).copy())
    features = double(normalised.reshape(N * D, *normalised.shape[2:])).reshape(N, D, -1).mean(1)
    f, g = features[: N // 2], features[N // 2 :]
    C = f.shape[1]
    W1, b1, W2, b2 = (weights[key] for key in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"))

    def delta(x, y):
        return (W2 @ torch.relu(W1[:, :C] @ x + W1[:, C:] @ y + b1) + b2)[0]

    B = len(s_a)
    loss = sum((delta(f[i], g[i]) - (s_a[i] - s_b[i]).double()) ** 2 for i in range(B)) / B
    loss = loss + sum((delta(g[i], f[i]) - (s_b[i] - s_a[i]).double()) ** 2 for i in range(B)) / B
    loss.backward()
    trunk = {f"trunk.{key}": value.grad for key, value in double.named_parameters()}
    return loss.item(), {**trunk, **{key: value.grad for key, value in weights.items()}}


@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradients_are_the_authors_formula(seed):
    model, data = small(), batch(seed=seed)
    expected, gradients = formula(model, *data)
    loss = contrastive_loss(model, *data)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    seen = {key: value.grad for key, value in model.named_parameters() if not key.startswith("regressor.")}
    assert seen.keys() == gradients.keys()
    for name, gradient in gradients.items():
        scale = gradient.abs().max()
        assert (seen[name].double() - gradient).abs().max() <= 1e-5 * max(1.0, float(scale)), name


def test_one_step_of_adam_is_the_papers():
    """Compare the step that `train` takes with the update written out: lr 1e-4, weight decay 1e-5 in the gradient."""
    model, data = small(), batch()
    _, gradients = formula(model, *data)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-5)
    contrastive_loss(model, *data).backward()
    optimizer.step()
    for name, value in model.named_parameters():
        gradient = gradients[name.removeprefix("regressor.")] + 1e-5 * before[name].double()
        large = gradient.abs() > 1e-4  # below, Adam's first step is decided by rounding
        expected = before[name].double() - 1e-4 * gradient / (gradient.abs() + 1e-8)
        assert (value.double() - expected).abs()[large].max() < 1e-6, name


def test_both_images_share_everything():
    """Swap the images of every pair, which changes nothing."""
    a, s_a, b, s_b = batch()
    losses = [contrastive_loss(small(), *data).item() for data in ((a, s_a, b, s_b), (b, s_b, a, s_a))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_all_pairs_are_the_pairs_one_by_one():
    a, s_a, _, _ = batch(B=4)
    model = small()
    features = model.features(a)
    expected = [
        (model.difference(features[i : i + 1], features[j : j + 1])[0] - (s_a[i] - s_a[j])) ** 2
        + (model.difference(features[j : j + 1], features[i : i + 1])[0] - (s_a[j] - s_a[i])) ** 2
        for i in range(4) for j in range(4) if i != j
    ]  # fmt: skip
    assert all_pairs_loss(small(), a, s_a).item() == pytest.approx(sum(expected).item() / len(expected), rel=1e-5)


def test_the_baseline_regresses_one_image():
    model = small("no-reference")
    a, s_a, _, _ = batch()
    assert model.fc1.weight.shape == (3, 6)
    loss = no_reference_loss(model, a, s_a)
    expected = torch.relu(model.features(a) @ model.fc1.weight.T + model.fc1.bias) @ model.fc2.weight.T + model.fc2.bias
    assert loss.item() == pytest.approx(((expected[:, 0] - s_a) ** 2).mean().item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_a_step(name):
    backbone = BACKBONES[name]
    model = Model(backbone).train()
    data = batch(D=1, B=1, P=backbone.patch_size)
    contrastive_loss(model, *data).backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    assert sum(value.grad is not None for value in model.parameters()) >= len(list(model.parameters())) - 2
