import pytest
import torch
from pscr_export.backbones import BACKBONES
from pscr_training.weights import load_weights
from safetensors.torch import save_file

from pscr_engine.errors import CheckpointError

SPEC = BACKBONES["resnet18"]


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return SPEC.build().state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_weights_of_wrapped_networks(state, tmp_path, prefix, name):
    wrapped = {f"{prefix}{key}": value.contiguous() for key, value in state.items()}
    (save_file if name.endswith(".safetensors") else torch.save)(wrapped, tmp_path / name)
    trunk = SPEC.build()
    load_weights(trunk, SPEC, str(tmp_path / name))
    assert torch.equal(trunk.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        (b"<!doctype html><html>", "is an HTML page"),
        (b"404: Not Found\n", "is a text file"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: {says}"):
        load_weights(SPEC.build(), SPEC, str(tmp_path / name))


def test_a_damaged_safetensors_file(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match=r"no safetensors file, or a damaged one \(.+\)$"):
        load_weights(SPEC.build(), SPEC, str(tmp_path / "w.safetensors"))
