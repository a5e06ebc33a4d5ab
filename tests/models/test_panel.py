"""How the bundles of one run get their names."""

from pathlib import Path

import pytest

from pscr_engine.config import ScoreConfig
from pscr_engine.errors import UsageError
from pscr_engine.models import DEFAULT_MODEL, Panel, one_or_panel


def names(given):
    return [name for name, _ in Panel.of(given).members]


def test_one_bundle_stays_as_it_is():
    for given in (None, "a.pscr", Path("a.pscr")):
        assert one_or_panel(given) == given
    assert one_or_panel(["a.pscr"]) == "a.pscr"
    assert one_or_panel(["x/y=1/a.pscr"]) == "x/y=1/a.pscr"
    assert one_or_panel(["q=a.pscr"]) == Panel((("q", "a.pscr"),))


def test_names_are_made_of_file_names():
    assert names(["runs/a b-1.pscr", Path("z.pscr"), "s3://bucket/deep/m.pscr", DEFAULT_MODEL]) == [
        "a_b_1",
        "agiqa3k_lite0",
        "m",
        "z",
    ]
    assert Panel.of({"z": "1", "a": "2"}) == Panel.of({"a": "2", "z": "1"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a.pscr", "b/a.pscr"], 'both called a, .* bundle="NAME=b/a.pscr"'),
        ({"a": "1", "A": "2"}, "called a and A"),
        ({"std": "1", "b": "2"}, "would read as a score_std"),
        ({"std_x": "1", "x": "2"}, "would read as a score_std"),
        ({"ä": "1", "x": "2"}, "can't be part of a column's name"),
        ({"": "1", "x": "2"}, "can't be part of a column's name"),
        (["a.pscr", "http://x/b.pscr"], "can't be on http"),
        ([], "names no bundle"),
        ({}, "names no bundle"),
    ],
)
def test_what_can_be_no_name(given, said):
    with pytest.raises(UsageError, match=said):
        ScoreConfig("m.csv", given)


def test_one_bundle_is_wanted_elsewhere():
    from pscr_engine.models import choose_bundle

    with pytest.raises(UsageError, match="one bundle is wanted here"):
        choose_bundle(["a.pscr", "b.pscr"])
