"""A tiny bundle and images, for tests of TensorRT."""

import pytest

from tests.helpers.images import encoded, pixels
from tests.helpers.tiny import make_bundle


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "m.pscr", precisions=("fp32", "fp16")).path


@pytest.fixture
def images(tmp_path):
    """Make a folder of 30 images, JPEGs and PNGs."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(30):
        kind = ("JPEG", "PNG")[seed % 2]
        (folder / f"{seed:02}.{kind.lower()}").write_bytes(encoded(pixels(50, 60, seed), kind))
    return folder
