"""The kernel's source, compiled by g++, against the host's sampling: every byte."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pscr_engine.cuda.kernels import build as build_fatbin
from pscr_engine.cuda.sampler import TAPS, DeviceImage, Tables, bilinear_taps
from pscr_engine.cuda.score_std import scratch_bytes
from pscr_engine.sampling import Sampling, TooSmallError

from . import host_kernel

BLOCK = 256


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return host_kernel.HostKernels(tmp_path_factory.mktemp("kernel"))


def launch(kernel, tables, sampling):
    P, D = sampling.patch_size, sampling.patches
    out = np.full((len(tables.corners), P, P, 3), 77, np.uint8)
    taps = tables.taps if len(tables.taps) else np.zeros(1, TAPS)
    corners = np.ascontiguousarray(tables.corners)
    addresses = [array.ctypes.data for array in (tables.images, taps, corners, out)]
    grid = -(-3 * P * P // (4 * BLOCK)), len(corners)
    kernel.launch("sample_patches", grid, BLOCK, *addresses, ctypes.c_int32(P), ctypes.c_int32(D))
    return out


def device_image(pixels, digest=b""):
    return DeviceImage(pixels.ctypes.data, pixels.strides[0], pixels.shape[0], pixels.shape[1], digest)


def padded(height, width, pitch, seed):
    """Make an image whose rows are further apart than its width, as decoders lay them out; return its memory, too."""
    memory = np.random.default_rng(seed).integers(0, 256, (height, pitch), np.uint8)
    return np.lib.stride_tricks.as_strided(memory, (height, width, 3), (pitch, 3, 1)), memory


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["ops", "nops", "rps"]),
    patch_size=st.sampled_from([8, 15, 24, 33]),
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 17)), min_size=1, max_size=4),
)
def test_patches_equal_the_hosts(kernel, name, patch_size, sizes):
    sampling = Sampling.create(name, patch_size)
    kept, images, expected = [], [], []
    for seed, (height, width, padding) in enumerate(sizes):
        view, memory = padded(height, width, 3 * width + padding, seed)
        digest = bytes([seed]) * 16
        kept.append(memory)
        images.append(device_image(view, digest))
        patches = np.empty((sampling.patches, patch_size, patch_size, 3), np.uint8)
        sampling.sample(np.ascontiguousarray(view), patches, digest=digest)
        expected.append(patches)
    out = launch(kernel, Tables.build(images, sampling), sampling)
    np.testing.assert_array_equal(out, np.concatenate(expected))


@pytest.mark.parametrize(("name", "patch_size"), [("ops", 224), ("nops", 224), ("rps", 224), ("ops", 299)])
@pytest.mark.parametrize(("height", "width"), [(512, 512), (768, 1024), (100, 300), (223, 4000)])
def test_patches_of_real_sizes(kernel, name, patch_size, height, width):
    sampling = Sampling.create(name, patch_size)
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    patches = np.empty((sampling.patches, patch_size, patch_size, 3), np.uint8)
    sampling.sample(pixels, patches, digest=b"x" * 16)
    out = launch(kernel, Tables.build([device_image(pixels, b"x" * 16)], sampling), sampling)
    np.testing.assert_array_equal(out, patches)


def test_at_most_three_taps_and_weights_that_add_up():
    for size, enlarged in [(1, 8), (2, 224), (7, 8), (223, 224), (100, 299), (223, 4000)]:
        taps = bilinear_taps(size, enlarged)
        assert taps["weights"].shape == (enlarged, 3)
        assert (taps["first"] >= 0).all()
        assert (taps["first"] + (taps["weights"] > 0).sum(1) <= size).all()
        assert (abs(taps["weights"].sum(1) - (1 << 22)) <= 2).all()


def test_an_image_that_cannot_be_enlarged_is_refused_as_on_the_host():
    sampling = Sampling.create("ops", 224)
    assert sampling.fitted_size(512, 512) == (512, 512)
    assert sampling.fitted_size(100, 300) == (224, 672)
    with pytest.raises(TooSmallError, match=r"5000×1: resizing .* over the limit of 1,000,000"):
        sampling.fitted_size(1, 5000, 10**6)


@settings(deadline=None)
@given(
    images=st.integers(1, 300),
    exemplars=st.integers(1, 400),
    offset=st.sampled_from([0.0, 3.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_the_spread_is_numpys(kernel, images, exemplars, offset, seed):
    scores = (np.random.default_rng(seed).normal(0, 1, (images, exemplars)) + offset).astype(np.float32)
    means = scores.mean(axis=1, dtype=np.float32)
    scratch = np.full(scratch_bytes(images) // 8, np.nan)
    out = np.full(images + 1, 77, np.float32)
    addresses = [array.ctypes.data for array in (scores, means, scratch, out)]
    kernel.launch("add_up_spread", (1, images), 128, *addresses[:3], ctypes.c_int32(exemplars))
    sizes = [ctypes.c_int32(size) for size in (images, 128, exemplars)]
    kernel.launch("finish_spread", (-(-images // 128), 1), 128, *addresses[2:], *sizes)
    np.testing.assert_allclose(out[:-1], scores.std(axis=1, dtype=np.float64), rtol=1e-6, atol=1e-7)
    assert out[-1] == 77


@pytest.mark.parametrize("source", build_fatbin.SOURCES, ids=lambda source: source.name)
def test_the_fatbin_is_of_this_source(source):
    assert build_fatbin.is_fresh(source), "run python -m pscr_engine.cuda.kernels.build and commit the result"
