import numpy as np
import pyarrow as pa
import pytest

from pscr_engine import Scorer
from pscr_engine.errors import UsageError
from pscr_engine.stages.arrays import as_pixels, is_tensor, tensor_as_array

from ..helpers.images import pixels

torch = pytest.importorskip("torch")

IMAGES = np.stack([pixels(50, 44, seed) for seed in range(5)])


class Foreign:
    """An array of some library that speaks DLPack and nothing else."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device
        self.shape = array.shape

    def __dlpack__(self, **how):
        if self.device[0] != 1:
            raise BufferError("this library can't copy to the host")
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.device


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    from ..helpers.tiny import make_bundle

    with Scorer.open(make_bundle(tmp_path_factory.mktemp("m") / "m.pscr").path, device="cpu") as opened:
        yield opened


def scores(images):
    return [image.score for image in images]


@pytest.mark.parametrize("make", [torch.from_numpy, Foreign, lambda array: array], ids=["torch", "dlpack", "numpy"])
def test_tensors_in_both_layouts_give_the_arrays_scores(scorer, make):
    expected = scores(scorer.score(list(IMAGES)))
    first = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    assert scores(scorer.score(make(IMAGES))) == expected
    assert scores(scorer.score(make(first))) == expected
    assert scores(scorer.score(make(first), layout="chw")) == expected
    assert scores(scorer.score([make(image) for image in first])) == expected
    assert scores(scorer.stream(make(image) for image in IMAGES)) == expected
    assert scorer.score(make(IMAGES[0])).score == expected[0]
    assert scorer.score(make(first[0])).score == expected[0]
    assert scorer.explain(make(first[0])).score == pytest.approx(expected[0], abs=1e-5)
    assert scorer.score(make(IMAGES[:0])) == []


def test_views_are_read_as_they_are_seen(scorer):
    tensor = torch.from_numpy(IMAGES)
    expected = scores(scorer.score(list(IMAGES)))
    assert scores(scorer.score(tensor.permute(0, 3, 1, 2))) == expected
    assert scores(scorer.score(tensor.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))) == expected
    assert scores(scorer.score(tensor[::2])) == expected[::2]
    assert scores(scorer.score(tensor.flip(0))) == expected[::-1]


def test_what_may_be_either_layout_is_refused_until_it_is_said(scorer):
    odd = pixels(3, 60)
    as_first = torch.from_numpy(np.ascontiguousarray(pixels(60, 3).transpose(2, 0, 1)))  # [3, 60, 3]
    for image in (odd, torch.from_numpy(odd), as_first, as_first.numpy(), Foreign(odd)):
        for given in (image, [image], image[None] if not isinstance(image, Foreign) else [image]):
            with pytest.raises(TypeError, match=r"^image 0 is an array \[3, 60, 3\], \[H, W, 3\] or \[3, H, W\]: say"):
                scorer.score(given)
    with pytest.raises(TypeError, match=r'with layout="hwc" or "chw"$'):
        scorer.explain(odd)
    assert (scorer.score(odd, layout="hwc").height, scorer.score(odd, layout="hwc").width) == (3, 60)
    assert (scorer.score(as_first, layout="chw").height, scorer.score(as_first, layout="chw").width) == (60, 3)
    assert scorer.explain(as_first, layout="chw").pixels.shape == (60, 3, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.rand(2, 3, 40, 40), r"^images is a tensor float32 \[2, 3, 40, 40\], not uint8: from \[0, 1\], "),
        (lambda: torch.rand(3, 40, 40).half(), r"^image 0 is a tensor float16 \[3, 40, 40\], not uint8: from"),
        (lambda: torch.zeros(3, 40, 40, dtype=torch.int8), r"^image 0 is a tensor int8 \[3, 40, 40\], not uint8$"),
        (lambda: torch.zeros(3, 40, 40, dtype=torch.bool), r"^image 0 is a tensor bool"),
        (lambda: torch.rand(2, 3, 40, 40, requires_grad=True), "^images is a tensor with requires_grad, and scores"),
        (lambda: torch.zeros(2, 1, 40, 40, dtype=torch.uint8), r"^image 0 is an array uint8 \[1, 40, 40\], not uint8"),
        (lambda: torch.zeros(2, 4, 40, 40, dtype=torch.uint8), r"^image 0 is an array uint8 \[4, 40, 40\], not uint8"),
        (lambda: torch.zeros(40, 40, dtype=torch.uint8), r"^images is a tensor \[40, 40\], not \[B, H, W, 3\]"),
        (lambda: torch.zeros(1, 2, 3, 40, 40, dtype=torch.uint8), r"^images is a tensor \[1, 2, 3, 40, 40\], not \[B"),
        (lambda: torch.tensor(3, dtype=torch.uint8), r"^images is a tensor \[\], not \[B"),
        (lambda: [torch.zeros(2, 3, 40, 40, dtype=torch.uint8)], r"^image 0 is an array uint8 \[2, 3, 40, 40\], not"),
        (lambda: torch.zeros(3, 40, 40, dtype=torch.uint8, device="meta"), r"^image 0 is a meta tensor \[3, 40, 40\]"),
        (lambda: torch.zeros(3, 40, 40, dtype=torch.uint8).to_sparse(), r"^image 0 is a sparse_coo tensor \[3, 40,"),
        (lambda: np.zeros((3, 40, 40), np.float32), r"^image 0 is an array float32 \[3, 40, 40\], not uint8"),
        (
            lambda: Foreign(np.zeros((3, 40, 40), np.float64)),
            r"^image 0 is a tensor float64 \[3, 40, 40\], not uint8: f",
        ),
        (
            lambda: Foreign(IMAGES, (2, 0)),
            r"^images is a .*Foreign that can't be read .* copy to the host\): give it on",
        ),
    ],
)
def test_what_is_no_image_is_one_line(scorer, make, message):
    with pytest.raises(TypeError, match=message) as raised:
        scorer.score(make())
    assert "\n" not in str(raised.value)


def test_the_layout_that_is_said_must_fit(scorer):
    with pytest.raises(TypeError, match=r"^image 0 is an array uint8 \[50, 44, 3\], not uint8 \[3, H, W\] RGB$"):
        scorer.score(IMAGES, layout="chw")
    with pytest.raises(TypeError, match=r"not uint8 \[H, W, 3\] RGB$"):
        scorer.score(IMAGES.transpose(0, 3, 1, 2), layout="hwc")
    with pytest.raises(UsageError, match=r"^layout 'nchw': choose hwc or chw, or leave it out$"):
        scorer.score(IMAGES, layout="nchw")


def test_options_that_there_are_not(scorer):
    with pytest.raises(TypeError, match=r"^no option 'feature': there are features, "):
        scorer.score(IMAGES, feature=True)
    with pytest.raises(UsageError, match=r"^max_pixels 0: must be at least 1$"):
        scorer.score(IMAGES, max_pixels=0)
    with pytest.raises(UsageError, match=r"^small_images 'no': choose upscale or error$"):
        scorer.stream(IMAGES, small_images="no")


def test_a_tensor_may_be_used_again(scorer):
    frame = torch.zeros(3, 40, 40, dtype=torch.uint8)

    def frames():
        for value in (10, 100, 200):
            frame[:] = value
            yield frame

    expected = [scorer.score(np.full((40, 40, 3), value, np.uint8)).score for value in (10, 100, 200)]
    assert scores(scorer.stream(frames())) == expected
    assert scores(scorer.score(frames())) == expected


def test_what_is_a_tensor():
    assert is_tensor(torch.zeros(1))
    assert is_tensor(Foreign(IMAGES))
    assert not any(is_tensor(value) for value in (IMAGES, torch.Tensor, b"", "x", [IMAGES], None, pa.array([1])))
    array = tensor_as_array(torch.from_numpy(IMAGES), "images")
    assert np.shares_memory(array, IMAGES)
    assert not np.shares_memory(as_pixels(array[0], "image"), IMAGES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_on_a_gpu(scorer):
    tensor = torch.from_numpy(IMAGES).cuda()
    expected = scores(scorer.score(list(IMAGES)))
    assert scores(scorer.score(tensor)) == scores(scorer.stream(tensor)) == expected
    assert scores(scorer.score(tensor.permute(0, 3, 1, 2))) == expected
