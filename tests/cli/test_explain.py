"""`pscr-engine explain`, as a process."""

import os

import pytest
from PIL import Image

from pscr_engine import Scorer

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

BUNDLE = "bundle model.pscr (in this folder)\n"


@pytest.fixture
def images(tmp_path):
    make_bundle(tmp_path / "model.pscr")
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels(80, 60, seed=ord(name))))
    return tmp_path


def test_a_page_by_default(cli, images):
    outcome = cli("explain", "a.png")
    assert (outcome.returncode, outcome.stderr) == (0, BUNDLE)
    expected = Scorer.open(images / "model.pscr").explain(images / "a.png")
    assert outcome.stdout == (
        f"a.png: score {expected.score:.3f}, mean of the patch scores {expected.mean_patch_score:.3f}\n"
        "explained in explain.html\n"
    )
    assert (images / "explain.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_picture_of_several(cli, images):
    outcome = cli("explain", "a.png", "b.png", "--out", "both.PNG", "--nearest", "0")
    assert outcome.returncode == 0
    assert [line.split(":")[0] for line in outcome.stdout.splitlines()] == ["a.png", "b.png", "explained in both.PNG"]
    with Image.open(images / "both.PNG") as picture:
        assert picture.width == 1280


def test_an_image_that_cannot_be_scored_is_one_line(cli, images):
    (images / "broken.png").write_bytes(b"broken")
    outcome = cli("explain", "broken.png")
    assert outcome.returncode == 1
    assert outcome.stderr == f"{BUNDLE}error: broken.png can't be scored: not an image in a known format\n"
    assert outcome.stdout == ""
    assert not (images / "explain.html").exists()

    among = cli("explain", "a.png", "none.png", "b.png")
    assert among.returncode == 1
    assert among.stderr == f"{BUNDLE}error: none.png can't be scored: no such file: none.png\n"
    assert (images / "explain.html").read_text(encoding="utf-8").count("<section") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'IMAGES...'"),
        (["a.png", "--out", "x.pdf"], "x.pdf: an explanation is a page or a picture; name it *.html or *.png"),
        (["a.png", "--out", "none/x.html"], "none: no such folder; make it, or name a file elsewhere"),
        (["a.png", "--exemplar-root", "none"], "--exemplar-root none: no such folder"),
        (["a.png", "--bundle", "none.pscr"], "none.pscr: no such bundle"),
        (["a.png", "--device", "cuda:7"], "there is no cuda:7 here"),
        (["a.png", "--precision", "fp16"], "no precision fp16"),
        (["a.png", "--nearest", "-1"], "Invalid value for '--nearest'"),
        (["a.png", "--small-images", "error", "--max-pixels", "9"], "over the limit of 9"),
    ],
)
def test_bad_usage_is_one_line(cli, images, arguments, message):
    outcome = cli("explain", *arguments)
    assert outcome.returncode in (1, 2)
    assert outcome.stdout == ""
    error = outcome.stderr.removeprefix(BUNDLE)
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_name_that_is_no_unicode(cli, images):
    name = os.fsdecode(b"caf\xe9\n.png")
    (images / name).write_bytes((images / "a.png").read_bytes())
    for out in ("page.html", "page.png"):
        outcome = cli("explain", name, "--out", out)
        assert outcome.returncode == 0, outcome.stderr
        assert outcome.stdout.startswith("caf\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.png: score ")
