"""The whole path on a GPU, as far as it goes on a machine without one."""

import pytest

from .test_device import on_pretend_driver

pytestmark = pytest.mark.medium

CHECKS = [
    "results",
    "explained",
    "undecodable",
    "memory",
    "many_threads",
    "out_of_memory",
    "faults",
    "wrong_pixels",
    "graphs",
    "batch_size",
    "refusals",
]


@pytest.mark.parametrize("check", CHECKS)
def test_with_bindings(tmp_path, check):
    on_pretend_driver("scoring_on_pretend_driver", check, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_with_pycuda(tmp_path, pycuda, check):
    on_pretend_driver("scoring_on_pretend_driver", check, tmp_path, pycuda)
