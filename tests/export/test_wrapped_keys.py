import itertools

import pytest
import torch
from pscr_export.wrapped_keys import without_wrappers
from torch import nn

from pscr_engine.errors import CheckpointError

PREFIXES = [
    "".join(parts) for count in range(4) for parts in itertools.product(("module.", "_orig_mod."), repeat=count)
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_away_in_any_order(prefix):
    state = {f"{prefix}{key}": torch.zeros(1) for key in ("conv1.weight", "layer1.0.bn1.bias")}
    assert list(without_wrappers(state, "c.pt")) == ["conv1.weight", "layer1.0.bn1.bias"]


def compiled(network):
    return torch.compile(network)


def test_real_wrappers():
    network = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1)))
    plain = network.state_dict()
    for wrapped in (
        nn.DataParallel(network),
        compiled(network),
        nn.DataParallel(compiled(network)),
    ):
        assert list(wrapped.state_dict()) != list(plain)
        found = without_wrappers(wrapped.state_dict(), "c.pt")
        assert list(found) == list(plain)
        assert all(found[key] is not None and torch.equal(found[key], plain[key]) for key in plain)
    network[1] = compiled(network[1])
    assert list(network.state_dict())[-1] == "1._orig_mod.0.bias"
    assert list(without_wrappers(network.state_dict(), "c.pt")) == list(plain)


def test_a_network_of_its_own_keeps_its_names():
    state = {key: torch.zeros(1) for key in ("features.module.weight", "module", "a.module")}
    assert without_wrappers(state, "c.pt") == state


def test_keys_that_become_the_same_are_refused():
    state = {"a.weight": torch.zeros(1), "module.a.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"c.pt: backbone has a.weight twice, once of them as module.a.weight"):
        without_wrappers(state, "c.pt: backbone")
