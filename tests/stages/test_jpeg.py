import io
import sys
from unittest.mock import patch

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pscr_engine.records import Query
from pscr_engine.stages import jpeg
from pscr_engine.stages.decode import DecodeOptions, decode

from ..helpers.images import encoded, pixels

sizes = st.integers(1, 70)
files = st.builds(
    lambda height, width, seed, **options: encoded(pixels(height, width, seed), "JPEG", **options),
    sizes,
    sizes,
    st.integers(0, 2**16),
    quality=st.sampled_from([1, 30, 75, 90, 100]),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    optimize=st.booleans(),
    restart_marker_blocks=st.sampled_from([0, 0, 3]),
)
damages = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


def outcome(data):
    query = Query(0, data=data)
    decode(query, DecodeOptions())
    shown = None if query.pixels is None else (query.pixels.dtype, query.pixels.shape, query.pixels.tobytes())
    return query.status, query.error, query.width, query.height, shown


def outcome_by_pillow(data):
    with patch.object(jpeg, "_trusted_decoder", lambda: None):
        return outcome(data)


@given(files)
def test_pixels_equal_pillows(data):
    with Image.open(io.BytesIO(data)) as image:
        by_pillow = np.asarray(image)
    found = jpeg.decode_jpeg(data, *by_pillow.shape[:2])
    assert found is not None
    assert np.array_equal(found, by_pillow)
    assert outcome(data) == outcome_by_pillow(data)


@settings(max_examples=300)
@given(files, damages, st.floats(0.3, 1), st.binary(max_size=9))
def test_damaged_files_end_as_with_pillow_alone(data, damages, kept, more):
    damaged = bytearray(data[: max(1, round(kept * len(data)))] + more)
    for place, value in damages:
        damaged[int(place * len(damaged))] = value
    assert outcome(bytes(damaged)) == outcome_by_pillow(bytes(damaged))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_are_left_to_pillow(mode):
    buffer = io.BytesIO()
    Image.fromarray(pixels(40, 50)).convert(mode).save(buffer, "JPEG")
    with patch.object(jpeg, "_trusted_decoder", side_effect=AssertionError):
        found = outcome(buffer.getvalue())
    assert found[:2] == ("ok", None)


def test_the_first_of_several_images_in_a_file():
    first, second = (Image.fromarray(pixels(40, 50, seed)) for seed in (1, 2))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert Image.open(buffer).format == "MPO"
    assert outcome(buffer.getvalue()) == outcome_by_pillow(buffer.getvalue())


@pytest.fixture
def untried():
    """Have the decoder tried anew, and again after the test."""
    jpeg._trusted_decoder.cache_clear()
    yield
    jpeg._trusted_decoder.cache_clear()


@pytest.mark.usefixtures("untried")
def test_a_decoder_with_other_pixels_is_not_used(monkeypatch):
    exact = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda data, colorspace, **_: exact(data, colorspace, fastupsample=True)
    )
    assert jpeg.jpeg_decoder().startswith("pillow ")
    data = encoded(pixels(40, 50), "JPEG")
    assert jpeg.decode_jpeg(data, 40, 50) is None
    assert outcome(data) == outcome_by_pillow(data)


@pytest.mark.usefixtures("untried")
def test_without_the_decoder_pillow_decodes(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert jpeg.jpeg_decoder().startswith("pillow ")
    assert outcome(encoded(pixels(40, 50), "JPEG"))[:2] == ("ok", None)


def test_here_it_is_used():
    assert jpeg.jpeg_decoder().startswith("simplejpeg ")
