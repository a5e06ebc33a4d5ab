"""What is trained, and at which rate."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.optimizing import freeze, make_optimizer, rate_factor, set_rates
from torch import nn

from pscr_engine.errors import UsageError


class Small:
    def __init__(self):
        self.trunk: nn.Module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
        self.regressor = nn.ModuleDict({"fc1": nn.Linear(8, 4), "fc2": nn.Linear(4, 1)})


def config(**settings):
    return TrainConfig(Source("labels.csv"), **settings)


def test_named_modules_are_frozen_and_no_others():
    model = Small()
    freeze(model.trunk, ("0", "1"))
    assert [p.requires_grad for p in model.trunk.parameters()] == [False, False, False, False, True, True]
    assert sum(len(group["params"]) for group in make_optimizer(config(), model).param_groups) == 6


def test_all_of_the_trunk_is_frozen():
    model = Small()
    freeze(model.trunk, ("all",))
    assert not any(p.requires_grad for p in model.trunk.parameters())
    optimizer = make_optimizer(config(head_learning_rate=1e-3), model)
    assert [len(group["params"]) for group in optimizer.param_groups] == [4]
    set_rates(optimizer, config(head_learning_rate=1e-3), 0.0)
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_an_unknown_module_is_named_with_those_that_there_are():
    with pytest.raises(UsageError, match=r"freeze layer9.*name some of 0, 1, 2, or all"):
        freeze(Small().trunk, ("layer9",))


def test_the_head_has_a_rate_of_its_own():
    settings = config(learning_rate=1e-4, head_learning_rate=5e-4, schedule="cosine", epochs=10)
    optimizer = make_optimizer(settings, Small())
    set_rates(optimizer, settings, 5.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5e-4, 2.5e-4])


def test_adamw_is_another_optimizer():
    assert type(make_optimizer(config(optimizer="adamw"), Small())) is torch.optim.AdamW
    assert type(make_optimizer(config(), Small())) is torch.optim.Adam


@given(epochs=st.integers(1, 50), warmup=st.floats(0, 0.9), moments=st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_cosine_falls_from_all_to_nothing(epochs, warmup, moments):
    settings = config(schedule="cosine", epochs=epochs, warmup_epochs=warmup)
    after = sorted(warmup + (epochs - warmup) * moment for moment in moments)
    factors = [rate_factor(settings, moment) for moment in after]
    assert factors == sorted(factors, reverse=True)
    assert rate_factor(settings, warmup) == 1
    assert rate_factor(settings, epochs) == pytest.approx(0, abs=1e-9)


@given(st.floats(0.1, 3), st.floats(0, 1, exclude_max=True))
def test_the_warm_up_rises_to_the_full_rate(warmup, share):
    settings = config(warmup_epochs=warmup, epochs=5)
    assert 0 < rate_factor(settings, warmup * share) <= 1
    assert rate_factor(settings, warmup) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer 'sgd'"),
        ({"schedule": "linear"}, "schedule 'linear'"),
        ({"train_patches": 0}, "train_patches 0"),
        ({"average": 1.0}, "average 1"),
        ({"warmup_epochs": 100.0}, "warmup_epochs 100"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(UsageError, match=message):
        config(**settings)


def test_the_length_of_a_cosine_is_a_setting_that_weights_depend_on():
    assert config(schedule="cosine", epochs=5).settings() != config(schedule="cosine", epochs=6).settings()
    constant = config(epochs=5)
    assert constant.settings() == dataclasses.replace(constant, epochs=6).settings()
