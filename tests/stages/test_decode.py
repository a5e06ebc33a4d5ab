import hashlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from pscr_engine.records import Query, Status
from pscr_engine.stages.decode import DecodeOptions, decode
from pscr_engine.stages.pillow import pillow_for_a_run

from ..conftest import REFERENCE
from ..helpers.images import bomb, encoded, pixels


def decoded(data, **options):
    query = Query(0, data=data)
    decode(query, DecodeOptions(**options))
    return query


def test_reference_images_decode_to_the_reference_pixels(golden):
    for name, facts in golden["images"].items():
        query = decoded((REFERENCE / "images" / name).read_bytes())
        assert hashlib.sha256(query.pixels.tobytes()).hexdigest() == facts["rgb_sha256"], name
        assert (query.width, query.height) == (facts["width"], facts["height"])


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    query = decoded(encoded(pixels(40, 60), "JPEG", exif=exif))
    assert query.pixels.shape == (40, 60, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "F"])
def test_any_mode_becomes_rgb_as_pillow_does_it(mode):
    source = Image.fromarray(pixels(30, 40))
    image = (
        Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else source.convert(mode)
    )
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    query = decoded(buffer.getvalue())
    assert query.ok, query.error
    assert np.array_equal(query.pixels, np.asarray(Image.open(buffer).convert("RGB")))


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(pixels(40, 40, seed)) for seed in (1, 2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(decoded(buffer.getvalue()).pixels, np.asarray(frames[0]))


@pytest.mark.parametrize("pillow_limit", [Image.MAX_IMAGE_PIXELS, None])
def test_a_bomb_is_seen_in_its_header(monkeypatch, pillow_limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    query = decoded(bomb())
    assert query.status == Status.TOO_LARGE
    assert query.pixels is None
    if pillow_limit is None:  # our own check then; Pillow's does not tell the size
        assert query.width == query.height == 60_000


def png_with_texts(*texts, tag=b"zTXt", profile=None):
    """Return a PNG of 40×40 pixels with compressed texts, and its pixels."""
    picture, info = pixels(40, 40), PngInfo()
    for number, text in enumerate(texts):
        if tag == b"iTXt":
            info.add_itxt(f"text {number}", text, zip=True)
        else:
            info.add_text(f"text {number}", text, zip=True)
    return encoded(picture, "PNG", pnginfo=info, icc_profile=profile), picture


@pytest.mark.parametrize("tag", [b"zTXt", b"iTXt"])
def test_megabytes_of_text_are_no_trouble(tag):
    data, picture = png_with_texts("workflow " * 400_000, "more " * 400_000, tag=tag)
    with pillow_for_a_run():
        query = decoded(data)
    assert query.ok, query.error
    np.testing.assert_array_equal(query.pixels, picture)


def test_a_large_colour_profile_is_no_trouble():
    data, picture = png_with_texts(profile=bytes(3 * 2**20))
    with pillow_for_a_run():
        query = decoded(data)
    assert query.ok, query.error
    np.testing.assert_array_equal(query.pixels, picture)


@pytest.mark.parametrize(
    ("texts", "profile"),
    [([" " * (65 * 2**20)], None), ([" " * (22 * 2**20)] * 3, None), ([], bytes(65 * 2**20))],
    ids=["one text", "in all", "profile"],
)
def test_metadata_that_unpacks_to_too_much_is_one_row_with_a_reason(texts, profile):
    data, _ = png_with_texts(*texts, profile=profile)
    assert len(data) < 2**20
    with pillow_for_a_run():
        query = decoded(data)
    assert query.status == Status.TOO_LARGE
    assert query.error == "its metadata (texts, colour profile) unpacks to more than 64 MiB"


def test_without_a_run_pillows_limit_is_told_in_plain_words():
    data, _ = png_with_texts("workflow " * 400_000)
    query = decoded(data)
    assert (query.status, query.error) == (
        Status.TOO_LARGE,
        "its metadata (texts, colour profile) unpacks to more than 1 MiB",
    )


def test_pillows_limits_return_when_the_last_run_has_ended(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    first, second = pillow_for_a_run(), pillow_for_a_run()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == (None, 64 * 2**20)
    second.__exit__(None, None, None)
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == (12345, 2**20)


def test_the_limit_on_pixels_is_exact():
    assert decoded(encoded(pixels(10, 20)), max_pixels=200).ok
    assert decoded(encoded(pixels(10, 20)), max_pixels=199).status == Status.TOO_LARGE


@pytest.mark.parametrize(("side", "status"), [(32, "ok"), (31, "too_small")])
def test_small_images_may_be_refused(side, status):
    data = encoded(pixels(40, side))
    assert decoded(data, patch_size=32, small_images="error").status == status
    assert decoded(data, patch_size=32).ok


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the file is empty"),
        (b"x", "not an image in a known format"),
        (b"not a picture", "not an image in a known format"),
        (encoded(pixels(200, 200), "JPEG")[:-300], "image file is truncated"),
        (encoded(pixels(50, 50), "PNG")[:600], "truncated"),
    ],
)
def test_what_is_no_image_is_undecodable(data, error):
    query = decoded(data)
    assert query.status == Status.UNDECODABLE
    assert error in query.error
    assert "0x" not in query.error  # no memory addresses: the same row in every run


def test_a_phones_two_image_file_is_a_jpeg():
    buffer = io.BytesIO()
    first, second = (Image.fromarray(pixels(40, 40, seed)) for seed in (1, 2))
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert decoded(buffer.getvalue()).pixels.shape == (40, 40, 3)


def test_postscript_is_not_run():
    query = decoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert query.status == Status.UNDECODABLE


def test_arrays_are_checked_too():
    query = Query(0, pixels=pixels(10, 20))
    decode(query, DecodeOptions(max_pixels=100))
    assert query.status == Status.TOO_LARGE
    query = Query(0, pixels=np.zeros((0, 20, 3), np.uint8))
    decode(query, DecodeOptions())
    assert query.status == Status.UNDECODABLE


GOOD = {kind: encoded(pixels(40, 40), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")}


@given(
    kind=st.sampled_from(sorted(GOOD)),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1),
)
def test_mutated_files_never_raise(kind, flips, keep):
    data = bytearray(GOOD[kind])
    for place, value in flips:
        data[place % len(data)] = value
    query = decoded(bytes(data[: int(len(data) * keep)]), max_pixels=10**6)
    assert query.ok == (query.pixels is not None)
    assert query.ok == (query.error is None)


def test_a_side_that_no_column_holds():
    """Decode a damaged TIFF, which may claim any 32 bits of width."""
    data = bytearray(encoded(pixels(10, 20), "TIFF"))
    entry = data.index(struct.pack("<HH", 256, 4)) if struct.pack("<HH", 256, 4) in data else -1
    if entry < 0:
        entry = data.index(struct.pack("<HH", 256, 3))
        data[entry : entry + 4] = struct.pack("<HH", 256, 4)
    data[entry + 8 : entry + 12] = struct.pack("<I", 2**31 + 60)
    before = Image.MAX_IMAGE_PIXELS
    with pillow_for_a_run():
        for limit in (10**6, 10**12):
            query = Query(0, data=bytes(data))
            decode(query, DecodeOptions(max_pixels=limit))
            assert (query.status, query.width, query.height) == (Status.TOO_LARGE, None, None)
            assert query.error.startswith("2147483708×10 is 21,474,837,080 pixels")
    assert before == Image.MAX_IMAGE_PIXELS
