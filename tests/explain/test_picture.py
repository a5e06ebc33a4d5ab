import itertools

import numpy as np
import pytest
from PIL import Image

from pscr_engine import Scorer
from pscr_engine.explain.picture import _fitted, _font, _text
from pscr_engine.explain.save import save

from ..helpers.images import pixels
from ..helpers.tiny import make_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def scorer(folder):
    return Scorer.open(make_bundle(folder / "m.pscr").path, device="cpu")


def saved(explanations, file):
    save(explanations, file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_the_image_and_its_patches_are_in_the_picture(scorer, folder):
    image = np.zeros((96, 96, 3), np.uint8)
    image[:32, :32] = (250, 20, 220)  # the first patch, and nothing else
    picture = saved([scorer.explain(image)], folder / "a.png")
    places = np.argwhere((picture == (250, 20, 220)).all(2))
    left = places[places[:, 1] < 640]
    assert len(left) > 150 * 150  # in the image, less the outlines over it
    right = places[places[:, 1] > 660]
    assert len(right) > 150 * 150  # by itself
    assert picture.shape[1] == 1280


def test_outlines_have_the_colours_of_the_differences(scorer, folder):
    explanation = scorer.explain(pixels(96, 96))
    scores = [patch.score for patch in explanation.patches]
    assert min(scores) < explanation.score < max(scores)
    picture = saved([explanation], folder / "b.png")
    furthest = max(scores, key=lambda score: abs(score - explanation.score))
    strongest = (0, 114, 178) if furthest > explanation.score else (213, 94, 0)
    assert (picture == strongest).all(2).sum() > 400


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 1), (10, 20), (2000, 1500)])
def test_any_size(scorer, folder, height, width):
    picture = saved([scorer.explain(pixels(height, width))], folder / "c.png")
    assert 700 < picture.shape[0] < 3000


@pytest.mark.medium
def test_several_images_stand_below_one_another(scorer, folder):
    one, other = scorer.explain(pixels(90, 90)), scorer.explain(pixels(60, 90), nearest=20)
    heights = [saved(explained, folder / "d.png").shape[0] for explained in ([one], [other], [one, other])]
    assert heights[2] == pytest.approx(heights[0] + heights[1], abs=60)


def test_lines_are_wrapped_and_nothing_is_cut_off():
    words = [f"word{number}" for number in range(60)]
    block = np.asarray(_text(" ".join(words), 17, width=300))
    assert block.shape[1] == 300
    assert (block[:, -1] == 255).all()
    empty = [not row.any() for row in (block != 255).any(2)]
    lines = sum(1 for _, group in itertools.groupby(empty) if not next(group))
    assert lines > 10


@pytest.mark.parametrize("name", ["W" * 300, "a/b/" + "long" * 50 + "/name.png", "short.png", ""])
def test_names_fit_on_their_line(name):
    line = _fitted(name, 30, 600)
    assert _font(30).getlength(line) <= 600
    assert line[-4:] == name[-4:]
    assert line == name or "..." in line


def test_without_explanations_there_is_no_file(folder):
    for name in ("none.html", "none.png"):
        save([], folder / name)
        assert not (folder / name).exists()
