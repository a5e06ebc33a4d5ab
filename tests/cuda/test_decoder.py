"""The decoder class of the GPU path, on the processor: pixels equal Pillow's, and what is not its own it leaves."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pscr_engine.cuda.decoder import ImageDecoder
from tests.helpers.images import encoded, pixels


@pytest.fixture(scope="module")
def decoder():
    return ImageDecoder(None, 2)


def rows_of(image):
    """Copy the pixels that the address of a decoded image points to, uint8 [height, width, 3]."""
    out = np.empty((image.height, image.width, 3), np.uint8)
    owner = np.asarray(image.owner)
    assert owner.ctypes.data == image.address
    for row in range(image.height):
        start = row * image.pitch
        out[row] = owner.reshape(-1)[start : start + 3 * image.width].reshape(-1, 3)
    return out


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@settings(max_examples=60, deadline=None)
@given(
    images=st.lists(
        st.tuples(
            st.integers(1, 90),
            st.integers(1, 90),
            st.sampled_from([0, 1, 2]),
            st.booleans(),
            st.integers(5, 98),
            st.sampled_from(["RGB", "L"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_pixels_are_pillows(decoder, images):
    data = [
        encoded(
            pixels(height, width, seed), "JPEG", mode, quality=quality, progressive=progressive,
            **({"subsampling": subsampling} if mode == "RGB" else {}),
        )
        for seed, (height, width, subsampling, progressive, quality, mode) in enumerate(images)
    ]  # fmt: skip
    read = [decoder.read(each) for each in data]
    for image, (height, width, *_) in zip(read, images, strict=True):
        assert (image.height, image.width) == (height, width)
    for image, each in zip(decoder.decode(read), data, strict=True):
        np.testing.assert_array_equal(rows_of(image), pillow(each))


def test_exif_rotation_is_not_heeded(decoder):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(pixels(30, 50), "JPEG", exif=exif)
    (image,) = decoder.decode([decoder.read(data)])
    np.testing.assert_array_equal(rows_of(image), pillow(data))


def test_without_smooth_chroma_pixels_differ():
    data = encoded(pixels(64, 64), "JPEG", subsampling=2)
    decoder = ImageDecoder(None, 1, smooth_chroma=False)
    found = decoder.read(data)
    assert found is not None
    (image,) = decoder.decode([found])
    assert (rows_of(image) != pillow(data)).any()


def test_what_is_ycbcr_without_jfif(decoder):
    """Decode JPEGs without JFIF, as cameras write them: Adobe's marker or the components' numbers tell the colours."""
    jfif = encoded(pixels(30, 40), "JPEG")
    assert jfif[2:4] == b"\xff\xe0"
    bare = jfif[:2] + jfif[20:]
    adobe = [bare[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + bare[2:] for transform in (0, 1)]
    frame = bare.index(b"\xff\xc0")
    named = bytearray(bare)
    for component, letter in enumerate(b"RGB"):
        named[frame + 10 + 3 * component] = letter
    for data, taken in ((bare, True), (adobe[1], True), (adobe[0], False), (bytes(named), False)):
        read = decoder.read(data)
        assert (read is not None) == taken
        if read is not None:
            (image,) = decoder.decode([read])
            np.testing.assert_array_equal(rows_of(image), pillow(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8 not a JPEG \xff\xd9",
        encoded(pixels(20, 20), "PNG"),
        encoded(pixels(20, 20), "WEBP"),
        encoded(pixels(20, 20), "JPEG", "CMYK"),
        encoded(pixels(20, 20), "JPEG")[:-2],
        encoded(pixels(20, 20), "JPEG", keep_rgb=True),
    ],
    ids=["empty", "nothing inside", "text", "PNG", "WebP", "CMYK", "cut short", "not YCbCr"],
)
def test_what_it_leaves_to_others(decoder, data):
    assert decoder.read(data) is None


def test_one_broken_image_does_not_harm_its_batch(decoder):
    whole = encoded(pixels(200, 200), "JPEG", quality=95)
    broken = whole[:400] + b"\xff\xd9"
    read = [decoder.read(data) for data in (whole, broken, whole)]
    decoded = decoder.decode([image for image in read if image is not None])
    np.testing.assert_array_equal(rows_of(decoded[0]), pillow(whole))
    np.testing.assert_array_equal(rows_of(decoded[-1]), pillow(whole))
    assert len(decoded) < 3 or decoded[1] is None


def test_no_images(decoder):
    assert decoder.decode([]) == []


def test_the_first_batch_is_a_full_one(decoder, monkeypatch):
    """Check the first batch's size: nvImageCodec makes the hardware engine for batches of that size."""
    sizes, original = [], ImageDecoder.decode

    def decode(self, images, stream=0):
        sizes.append(len(images))
        return original(self, images, stream)

    monkeypatch.setattr(ImageDecoder, "decode", decode)
    ImageDecoder(None, 2).probe()
    assert sizes == [256]
