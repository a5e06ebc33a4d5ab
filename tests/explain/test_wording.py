import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.explain.wording import colour, distance, elided, printable, score_format

from ..helpers.tiny import make_bundle


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return score_format(make_bundle(tmp_path_factory.mktemp("numbers") / "m.pscr"))  # labels from 1 to 5


@pytest.mark.parametrize(
    ("value", "score", "difference"),
    [
        (3.42149, "3.421", "+3.421"),
        (-0.5, "−0.500", "−0.500"),
        (0.0004, "0.000", "±0.000"),
        (-0.0004, "0.000", "±0.000"),
    ],
)
def test_scores_have_the_digits_that_the_label_range_wants(numbers, value, score, difference):
    assert numbers.score(value) == score
    assert numbers.difference(value) == difference


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (3.3, "3.30"), (14.02, "14.0"), (123.4, "123"), (1234.5, "1,234")]
)
def test_distances_have_three_digits(value, text):
    assert distance(value) == text


def test_colours_go_from_worse_by_way_of_grey_to_better():
    assert [colour(value, 2) for value in (-9, -2, 0, 2, 9)] == ["#d55e00", "#d55e00", "#969696", "#0072b2", "#0072b2"]
    assert colour(1, 2) == "#4b84a4"


@pytest.mark.medium
@given(text=st.text(), length=st.integers(3, 40))
def test_text_is_one_line_that_can_be_written(text, length):
    shown = printable(text)
    assert len(shown) == len(text)
    assert "".join(shown.splitlines()) == shown
    assert shown.encode().decode() == shown
    assert len(elided(shown, length)) <= length
    assert elided(shown, len(shown)) == shown
