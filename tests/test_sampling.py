import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pscr_engine.errors import UsageError
from pscr_engine.sampling import SAMPLINGS, Sampling, TooSmallError, content_digest

from .conftest import REFERENCE
from .helpers.images import pixels


@pytest.mark.parametrize(("patch_size", "starts"), [(224, [0, 150, 288]), (299, [0, 100, 213])])
def test_ops_at_512_are_the_reference_positions(patch_size, starts):
    corners = Sampling.create("ops", patch_size).corners(512, 512)
    assert corners == [(top, left) for top in starts for left in starts]


def test_nops_at_512_are_the_reference_positions():
    assert Sampling.create("nops", 224).corners(512, 512) == [(0, 0), (0, 224), (224, 0), (224, 224)]


def test_nops_is_refused_where_two_patches_do_not_fit():
    with pytest.raises(UsageError, match="don't fit side by side"):
        Sampling.create("nops", 299)


def test_unknown_sampling_names_the_known_ones():
    with pytest.raises(UsageError, match="ops, nops, rps, none"):
        Sampling.create("opps", 224)


def test_height_and_width_are_scaled_separately():
    corners = Sampling.create("ops", 224).corners(224 + 96, 224 + 576)
    assert corners == [(top, left) for top in (0, 50, 96) for left in (0, 300, 576)]


@pytest.mark.parametrize("patch_size", [224, 299])
def test_none_takes_the_reference_crops(golden, patch_size):
    sampling = Sampling.create("none", patch_size)
    out = np.empty((1, patch_size, patch_size, 3), np.uint8)
    for name, facts in golden["images"].items():
        sampling.sample(np.asarray(Image.open(REFERENCE / "images" / name).convert("RGB")), out)
        assert hashlib.sha256(out.tobytes()).hexdigest() == facts["cr_crop_sha256"][str(patch_size)], name


@given(
    name=st.sampled_from(SAMPLINGS),
    patch_size=st.integers(1, 64),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    digest=st.binary(max_size=16),
)
def test_patches_are_copies_of_the_fitted_image(name, patch_size, height, width, digest):
    sampling = Sampling.create(name, patch_size)
    image = pixels(height, width)
    out = np.full((sampling.patches, patch_size, patch_size, 3), 77, np.uint8)
    sampling.sample(image, out, digest=digest)
    fitted = sampling._fit(image, None)
    assert min(fitted.shape[:2]) >= patch_size
    tall, wide = fitted.shape[:2]
    for patch, (top, left) in zip(out, sampling.corners(tall, wide, digest), strict=True):
        assert 0 <= top <= fitted.shape[0] - patch_size
        assert 0 <= left <= fitted.shape[1] - patch_size
        assert np.array_equal(patch, fitted[top : top + patch_size, left : left + patch_size])
    if name != "none" and min(height, width) >= patch_size:
        assert fitted is image


@given(
    name=st.sampled_from(SAMPLINGS),
    patch_size=st.integers(1, 64),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    digest=st.binary(max_size=16),
)
def test_boxes_are_where_the_patches_come_from(name, patch_size, height, width, digest):
    sampling = Sampling.create(name, patch_size)
    fitted_height, fitted_width = sampling.fitted_size(height, width)
    boxes = sampling.boxes(height, width, digest)
    for box, (top, left) in zip(boxes, sampling.corners(fitted_height, fitted_width, digest), strict=True):
        assert 0 <= box.left < box.right <= width * (1 + 1e-9)
        assert 0 <= box.top < box.bottom <= height * (1 + 1e-9)
        assert box.left / width == pytest.approx(left / fitted_width)
        assert box.bottom / height == pytest.approx((top + patch_size) / fitted_height)
        if (fitted_height, fitted_width) == (height, width):
            assert box == (left, top, left + patch_size, top + patch_size)


def test_boxes_of_an_image_that_is_resized_show_its_patches():
    """Resize a picture of four colours: the colours in the boxes are the colours of the patches."""
    image = np.zeros((60, 60, 3), np.uint8)
    image[:30, 30:], image[30:, :30], image[30:, 30:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    for sampling in (Sampling.create("nops", 100), Sampling.create("none", 16), Sampling.create("ops", 40)):
        patches = np.empty((sampling.patches, sampling.patch_size, sampling.patch_size, 3), np.uint8)
        sampling.sample(image, patches)
        for patch, box in zip(patches, sampling.boxes(60, 60), strict=True):
            shown = Image.fromarray(image).resize((1, 1), Image.Resampling.BOX, box)
            assert np.asarray(shown)[0, 0] == pytest.approx(patch.mean((0, 1)), abs=8)


@given(height=st.integers(224, 4000), width=st.integers(224, 4000), name=st.sampled_from(["ops", "nops"]))
def test_grids_keep_their_fractions_to_half_a_pixel(height, width, name):
    sampling = Sampling.create(name, 224)
    corners = sampling.corners(height, width)
    expected = [(a * (height - 224), b * (width - 224)) for a in sampling.fractions for b in sampling.fractions]
    for got, want in zip(corners, expected, strict=True):
        assert abs(got[0] - want[0]) <= 0.5
        assert abs(got[1] - want[1]) <= 0.5


def test_rps_depends_on_content_and_seed_alone():
    sampling = Sampling.create("rps", 224)
    one, other = content_digest(b"one"), content_digest(b"other")
    assert sampling.corners(512, 512, one) == sampling.corners(512, 512, one)
    assert sampling.corners(512, 512, one) != sampling.corners(512, 512, other)
    assert sampling.corners(512, 512, one) != Sampling.create("rps", 224, seed=1).corners(512, 512, one)
    # Written down: another Python, NumPy or machine must draw the same.
    assert sampling.corners(512, 512, one)[:3] == RPS_FIRST_CORNERS


RPS_FIRST_CORNERS = [(215, 177), (219, 5), (274, 140)]


def test_rps_covers_the_free_space_evenly():
    sampling = Sampling.create("rps", 224)
    tops = [top for index in range(400) for top, _ in sampling.corners(233, 512, bytes([index % 256, index // 256]))]
    counts = np.bincount(tops, minlength=10)
    assert len(counts) == 10  # 233 - 224 + 1 places
    assert counts.min() > 0.7 * len(tops) / 10
    assert counts.max() < 1.3 * len(tops) / 10


def test_same_pixels_same_digest_whatever_the_memory_layout():
    image = pixels(40, 50)
    assert content_digest(image) == content_digest(np.asfortranarray(image))


def test_upscaling_keeps_the_aspect_ratio_and_is_pillows():
    image = pixels(100, 60)
    fitted = Sampling.create("ops", 224)._fit(image, None)
    assert fitted.shape == (math.floor(224 * 100 / 60), 224, 3)
    assert np.array_equal(fitted, np.asarray(Image.fromarray(image).resize((224, 373), Image.Resampling.BILINEAR)))


def test_a_sliver_that_would_grow_beyond_the_limit_is_too_small():
    out = np.empty((9, 224, 224, 3), np.uint8)
    with pytest.raises(TooSmallError, match="over the limit of 1,000,000"):
        Sampling.create("ops", 224).sample(pixels(1, 3000), out, max_pixels=1_000_000)


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("patch_size", [64, 224])
def test_json_keeps_everything(name, patch_size):
    sampling = Sampling.create(name, patch_size, seed=5 if name == "rps" else 0)
    assert Sampling.from_json(sampling.as_json(), patch_size) == sampling


@pytest.mark.parametrize(
    "value",
    [
        {"name": "grid", "patches": 9},
        {"name": "ops", "patches": 9, "fractions": [[0, 1], [3, 2], [1, 1]]},
        {"name": "ops", "patches": 4, "fractions": [[0, 1], [1, 2], [1, 1]]},
        {"name": "none", "patches": 1, "resize": 10},
    ],
)
def test_json_that_makes_no_sense_is_refused(value):
    with pytest.raises(ValueError, match="sampling"):
        Sampling.from_json(value, 224)
