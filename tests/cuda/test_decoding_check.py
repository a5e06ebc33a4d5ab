import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pscr_engine.cuda.decoder import ImageDecoder
from pscr_engine.cuda.decoding_check import DecodingCheck, largest_difference
from tests.helpers.images import encoded, pixels


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@given(rate=st.floats(0.0005, 1), groups=st.lists(st.integers(0, 70), max_size=60))
def test_the_first_and_then_a_share_are_compared(rate, groups):
    check, chosen, at = DecodingCheck(rate), [], 0
    for count in groups:
        wanted = check.wanted(count)
        assert all(0 <= index < count for index in wanted)
        chosen += [at + index for index in wanted]
        at += count
    assert chosen[:16] == list(range(min(16, at)))
    assert len(chosen) == pytest.approx(min(16, at) + rate * max(0, at - 16), abs=1.01)


def test_a_rate_of_none_compares_none():
    assert DecodingCheck(0).wanted(1000) == []


def test_a_real_decoders_pixels_pass_with_smooth_chroma_and_without():
    for smooth in (True, False):
        decoder = ImageDecoder(None, 1, smooth_chroma=smooth)
        check = DecodingCheck(1.0)
        for seed in range(5):
            data = encoded(pixels(150, 130, seed), "JPEG", quality=80, subsampling=2)
            found = decoder.read(data)
            assert found is not None
            (image,) = decoder.decode([found])
            assert not check.is_wrong(np.asarray(image.owner), data, "x.jpg")
        assert check.wrong == 0


@pytest.mark.parametrize("place", [(0, 0), (30, 40), (84, 114)])
def test_one_block_that_was_never_written_is_found(place, caplog):
    data = encoded(pixels(100, 130), "JPEG")
    decoded = pillow(data).copy()
    top, left = place
    decoded[top : top + 16, left : left + 16] = 0xCA
    check = DecodingCheck(1.0)
    assert check.is_wrong(decoded, data, "x.jpg")
    assert "x.jpg: the GPU's decoder got it wrong" in caplog.text
    assert "Pillow's pixels are taken" in caplog.text
    assert not check.given_up
    for _ in range(2):
        check.is_wrong(decoded, data, "x.jpg")
    assert check.given_up
    assert "this GPU's decoder is not used any more in this run" in caplog.text


def test_another_image_another_size_and_the_same():
    a, b = pixels(64, 48, 1), pixels(64, 48, 2)
    assert largest_difference(a, a) == 0
    assert largest_difference(a, b) > 32
    assert largest_difference(a, a[:-1]) == float("inf")
    assert largest_difference(a[:1, :1], a[:1, :1]) == 0
