import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.explain import Explanation, PatchScore
from pscr_engine.explain.layout import lay_out
from pscr_engine.explain.wording import score_format
from pscr_engine.sampling import SAMPLINGS, Sampling

from ..helpers.tiny import P, make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("figure") / "m.pscr")


def explanation(bundle, sampling, height, width, scores):
    boxes = Sampling.create(sampling, P).boxes(height, width, b"digest")
    patches = tuple(PatchScore(box, score, 0.1) for box, score in zip(boxes, itertools.cycle(scores), strict=False))
    image = np.zeros((height, width, 3), np.uint8)
    return Explanation("a.png", image, 3.0, 0.1, patches, (), 1.0, bundle, "fp32", "cpu")


@given(
    sampling=st.sampled_from(SAMPLINGS),
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    scores=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9),
)
def test_badges_are_all_to_be_seen(bundle, sampling, height, width, scores):
    figure = lay_out(explanation(bundle, sampling, height, width, scores), score_format(bundle))
    badges = [mark.badge for mark in figure.marks]
    for badge, mark in zip(badges, figure.marks, strict=True):
        assert figure.view.left < badge.left < mark.split < badge.right < figure.view.right
        assert figure.view.top < badge.top < badge.bottom < figure.view.bottom
    for one, other in itertools.combinations(badges, 2):
        apart = one.right <= other.left or other.right <= one.left or one.bottom <= other.top or other.bottom <= one.top
        assert apart
    assert [mark.number for mark in figure.marks] == list(range(1, len(badges) + 1))


def test_marks_say_what_the_patches_score(bundle):
    scores = [3.0, 3.5, 2.75, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    figure = lay_out(explanation(bundle, "ops", 96, 96, scores), score_format(bundle))
    first, best, worst = figure.marks[:3]
    assert (first.score, first.difference, first.colour) == ("3.000", "±0.000", "#969696")
    assert (best.score, best.difference, best.colour) == ("3.500", "+0.500", "#0072b2")
    assert (worst.score, worst.difference) == ("2.750", "−0.250")
    middle = best.box.left + P / 2, best.box.top + P / 2
    assert ((best.badge.left + best.badge.right) / 2, (best.badge.top + best.badge.bottom) / 2) == pytest.approx(middle)


def test_differences_that_are_nothing_look_like_nothing(bundle):
    close = explanation(bundle, "ops", 96, 96, [3.00001, 2.99999])
    assert {mark.colour for mark in lay_out(close, score_format(bundle)).marks} == {"#969696"}
    far = replace(close, score=2.0)
    assert {mark.colour for mark in lay_out(far, score_format(bundle)).marks} == {"#0072b2"}
