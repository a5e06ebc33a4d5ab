import json

import pytest

from pscr_engine.errors import BundleError
from pscr_engine.models import Interval, ModelFacts

from ..helpers.shipped import facts_of
from ..helpers.tiny import make_bundle

REMOVED = object()


@pytest.fixture
def facts(tmp_path):
    return facts_of(make_bundle(tmp_path / "b.pscr"), "m")


def read(folder, value):
    (folder / "m.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return ModelFacts.read(folder / "m.json")


def changed(facts, path, value):
    """Copy the facts with the value at `path` ("figures.fp32.srcc") replaced, added, or removed."""
    copy = json.loads(json.dumps(facts))
    *parents, name = path.split(".")
    inner = copy
    for parent in parents:
        inner = inner[parent]
    if value is REMOVED:
        del inner[name]
    else:
        inner[name] = value
    return copy


def test_the_file_says_all_that_users_are_told(tmp_path, facts):
    found = read(tmp_path, facts)
    assert found.name == "m"
    assert found.figures["fp32"].srcc == Interval(0.81, 0.7, 0.9)
    assert found.figures["int8"].plcc == Interval(0.83, 0.75, 0.91)
    assert found.figures["fp32"].images == 60
    assert (found.data_licence, found.weights_licence) == ("made up", "Apache-2.0")
    assert found.as_json() == facts


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("summary", REMOVED, "the file lacks 'summary'"),
        ("author", "me", "the file has 'author', which means nothing here"),
        ("format_version", 2, "'format' is not 'pscr-model' in version 1"),
        ("name", "other", "'name' is 'other'"),
        ("bundle", "abc", "'bundle' is no SHA-256"),
        ("trunk", "", "'trunk' is no line of text"),
        ("trunk", "two\nlines", "'trunk' is no line of text"),
        ("data", 5, "'data' is no line of text"),
        ("licence", "free", "'licence' is no object"),
        ("licence.data", REMOVED, "'licence' lacks 'data'"),
        ("figures", {}, "'figures' has no precision"),
        ("figures.fp8", {}, "'figures' has 'fp8', which is no precision"),
        ("figures.fp32.images", True, "'images' of fp32 is no number of images"),
        ("figures.fp32.srcc", REMOVED, "'figures' of fp32 lacks 'srcc'"),
        ("figures.fp32.mae", [1, 1, 1], "'figures' of fp32 has 'mae', which means nothing here"),
        ("figures.fp32.srcc", 0.8, "'srcc' of fp32 is not three numbers: value, low, high"),
        ("figures.fp32.plcc", [0.8, 0.9, 1.0], "'plcc' of fp32 is no value within its interval"),
        ("figures.int8.plcc", [float("nan"), 0, 1], "'plcc' of int8 is no value within its interval"),
    ],
)
def test_malformed_facts_are_one_line(tmp_path, facts, path, value, message):
    with pytest.raises(BundleError) as raised:
        read(tmp_path, changed(facts, path, value))
    assert str(raised.value) == f"{tmp_path / 'm.json'}: malformed ({message}); install pscr-engine again"


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "[" * 100_000])
def test_what_is_no_object_is_one_line(tmp_path, text):
    with pytest.raises(BundleError, match=r"m\.json: malformed \(.*\); install pscr-engine again") as raised:
        read(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(BundleError, match=r"m\.json: can't be read \(No such file"):
        ModelFacts.read(tmp_path / "m.json")
