import io
import itertools
import os
import tempfile
import time

import numpy as np
import pytest
from PIL import Image

from pscr_engine import Scorer, Status
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import BackendError, BundleError, UsageError
from pscr_engine.sampling import content_digest

from .helpers.images import encoded, pixels
from .helpers.tiny import C, expected_score, make_bundle

IMAGE = pixels(70, 50, seed=4)


@pytest.fixture
def scorer(tiny):
    return Scorer.open(tiny.path)


def test_the_score_is_the_networks(scorer, tiny):
    assert scorer.score(IMAGE).score == pytest.approx(expected_score(tiny, IMAGE), abs=1e-5)


def test_every_kind_of_input_gives_the_same_score(scorer, tmp_path):
    data = encoded(IMAGE)
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file:
        images = [
            tmp_path / "a.png",
            str(tmp_path / "a.png"),
            data,
            Image.fromarray(IMAGE),
            Image.open(file),
            IMAGE,
        ]
        scores = {image.score for image in scorer.score(images)}
    assert len(scores) == 1


def test_one_image_gives_one_and_several_give_a_list(scorer):
    one = scorer.score(IMAGE, features=True, exemplar_scores=True)
    assert one.ok
    assert (one.width, one.height) == (50, 70)
    assert one.features.shape == (C,)
    assert one.score == pytest.approx(one.exemplar_scores.mean(), abs=1e-6)
    assert one.score_std == pytest.approx(one.exemplar_scores.std(), abs=1e-6)
    assert scorer.score([IMAGE])[0].score == one.score
    assert scorer.score(np.stack([IMAGE, IMAGE]))[1].score == one.score
    assert scorer.score([]) == []
    assert scorer.score(iter([IMAGE, IMAGE]))[1].exemplar_scores is None


def test_order_is_kept_and_bad_images_have_a_status(scorer, tmp_path):
    out = scorer.score([b"broken", IMAGE, tmp_path / "nothing.png", pixels(40, 40)], batch_size=1)
    assert [image.status for image in out] == [Status.UNDECODABLE, Status.OK, Status.MISSING, Status.OK]
    assert out[2].score is None
    assert "nothing.png" in out[2].error


def test_a_lazily_opened_broken_pil_image_is_a_status_too(scorer):
    image = Image.open(io.BytesIO(encoded(IMAGE, "JPEG")[:800]))
    assert scorer.score(image).status == Status.UNDECODABLE


@pytest.mark.parametrize("wrong", [3, None, IMAGE.astype(float), IMAGE[..., 0], [IMAGE]])
def test_what_is_no_image_is_a_type_error(scorer, wrong):
    with pytest.raises(TypeError, match="image 0 is a"):
        scorer.score([wrong])


def test_an_array_may_be_used_again(scorer):
    frame = np.zeros((40, 40, 3), np.uint8)

    def frames():
        for value in (10, 100, 200):
            frame[:] = value
            yield frame

    scores = [image.score for image in scorer.score(frames())]
    assert scores == [scorer.score(np.full((40, 40, 3), value, np.uint8)).score for value in (10, 100, 200)]


def test_limits_are_the_callers(scorer):
    assert scorer.score(IMAGE, max_pixels=100).status == Status.TOO_LARGE
    assert scorer.score(pixels(10, 90), small_images="error").status == Status.TOO_SMALL
    assert scorer.score(pixels(10, 90)).ok
    with pytest.raises(UsageError, match="batch_size 0"):
        scorer.score(IMAGE, batch_size=0)


def test_rps_follows_the_content_not_batch_or_order(tmp_path):
    bundle = make_bundle(tmp_path / "rps.pscr", sampling="rps")
    scorer = Scorer.open(bundle.path)
    images = [encoded(pixels(90, 80, seed)) for seed in range(6)]
    alone = [scorer.score(image).score for image in images]
    together = [image.score for image in scorer.score(images[::-1], batch_size=4)][::-1]
    assert alone == pytest.approx(together, abs=1e-6)
    assert alone[0] == pytest.approx(expected_score(bundle, pixels(90, 80, 0), content_digest(images[0])), abs=1e-5)


def test_what_this_host_cannot_run_is_refused(tiny, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="there is no cuda:0 here"):
        Scorer.open(tiny.path, device="cuda:0")
    with pytest.raises(UsageError, match="choose from onnxruntime"):
        Scorer.open(tiny.path, backend="another")
    with pytest.raises(UsageError, match="runs on NVIDIA GPUs"):
        Scorer.open(tiny.path, backend="tensorrt", device="cpu")
    with pytest.raises(BundleError, match="no precision fp16"):
        Scorer.open(tiny.path, precision="fp16")
    int8 = make_bundle(tmp_path / "int8.pscr", precisions=("int8",))
    monkeypatch.setattr("pscr_engine.backends.precision.fast_int8", lambda: False)
    with pytest.raises(BackendError, match="no precision that runs on cpu, only int8"):
        Scorer.open(int8.path)


def test_a_stream_without_end_is_scored_as_it_comes(tiny):
    scorer = Scorer.open(tiny.path)
    taken = []

    def images():
        for seed in itertools.count():
            taken.append(seed)
            yield pixels(40, 40, seed % 50)

    scored = scorer.stream(images())
    for seed in range(300):
        assert next(scored).score == pytest.approx(expected_score(tiny, pixels(40, 40, seed % 50)), abs=1e-5)
    assert len(taken) < 700  # it reads ahead, not away
    scored.close()
    time.sleep(0.3)
    before = len(taken)
    time.sleep(0.2)
    assert len(taken) == before


def test_a_stream_that_breaks_ends_with_its_error(tiny):
    def images():
        yield from (pixels(40, 40, seed) for seed in range(30))
        raise ConnectionError("the queue is down")

    with pytest.raises(ConnectionError, match="the queue is down"):
        list(Scorer.open(tiny.path).stream(images()))
    with pytest.raises(UsageError, match="batch_size 0"):
        Scorer.open(tiny.path).stream([], batch_size=0)


def test_score_manifest_reports_its_progress(tiny, tmp_path):
    for index in range(100):
        (tmp_path / f"{index:02d}.png").write_bytes(encoded(pixels(40, 40, index)))
    seen = []
    config = ScoreConfig(str(tmp_path / "*.png"), bundle=tiny.path, out=tmp_path / "out")
    result = Scorer.score_manifest(config, seen.append)
    assert (result.rows, result.failed, result.scored) == (100, 0, 100)
    assert [snapshot.final for snapshot in seen[-2:]] == [False, True]
    assert seen[-1].rows == seen[-1].total == 100
    assert sorted(snapshot.rows for snapshot in seen) == [snapshot.rows for snapshot in seen]


def test_buffers_and_open_files_are_images(scorer, tmp_path):
    data = encoded(IMAGE)
    expected = scorer.score(data).score
    written = io.BytesIO()
    Image.fromarray(IMAGE).save(written, "PNG")  # and left at its end
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file, tempfile.NamedTemporaryFile() as temporary:
        temporary.write(data)
        images = [io.BytesIO(data), written, file, temporary, bytearray(data), memoryview(data)]
        assert [scorer.score(image).score for image in images] == [expected] * 6
        assert [image.score for image in scorer.score(images)] == [expected] * 6
        assert scorer.explain(io.BytesIO(data)).score == pytest.approx(expected, abs=1e-5)
        assert not file.closed
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with open(reading, "rb") as pipe:  # can't be rewound
        assert scorer.score(pipe).score == expected
    assert scorer.score(io.BytesIO(b"")).status is Status.UNDECODABLE


def test_files_that_give_no_bytes(scorer):
    class Broken(io.BytesIO):
        def read(self, size=-1, /):
            raise OSError("the disk is gone")

    with pytest.raises(TypeError, match="image 0 is a file that gives str, not bytes: open it with mode 'rb'"):
        scorer.score(io.StringIO("text"))
    broken = scorer.score(Broken())
    assert (broken.status, broken.error) == (Status.UNREADABLE, "the disk is gone")


def test_closed_means_closed(tiny):
    scorer = Scorer.open(tiny.path, device="cpu")
    stream = scorer.stream([IMAGE] * 3)
    next(stream)
    scorer.close()
    scorer.close()
    for use in (
        lambda: scorer.score(IMAGE),
        lambda: scorer.stream([IMAGE]),
        lambda: scorer.explain(IMAGE),
        lambda: scorer.__enter__(),
        lambda: next(stream),
    ):
        with pytest.raises(UsageError, match=r"^this scorer is closed; open another one with Scorer\.open$"):
            use()
    with Scorer.open(tiny.path) as another:
        assert another.score(IMAGE).ok
    with pytest.raises(UsageError, match="this scorer is closed"):
        another.score(IMAGE)
