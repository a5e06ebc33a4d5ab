import logging
import pickle
from pathlib import Path

import pytest

from pscr_engine import Scorer
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import BundleError, UsageError
from pscr_engine.models import DEFAULT_MODEL, choose_bundle
from pscr_engine.runners.ray.score_batch import ScoreBatch
from pscr_engine.stores.uri import StorePath

from ..helpers.images import pixels
from ..helpers.shipped import ship
from ..helpers.tiny import make_bundle

IMAGE = pixels(60, 60, 2)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_name_what_is_here_comes_first(models_folder, here):
    with pytest.raises(BundleError) as raised:
        choose_bundle(None)
    assert str(raised.value) == (
        "no model.pscr here, and no model is shipped with this pscr-engine; make a bundle with pscr-engine export, "
        "or name one with bundle"
    )
    ship(models_folder)
    choice = choose_bundle(None)
    assert (choice.model, choice.place, choice.default) == (DEFAULT_MODEL, None, True)
    assert choice.describe() == f"{DEFAULT_MODEL} (the shipped model: no model.pscr here)"
    make_bundle(here / "model.pscr", exemplars=3)
    choice = choose_bundle(None)
    assert (choice.model, choice.place, choice.default) == (None, Path("model.pscr"), True)
    assert choice.describe() == "model.pscr (in this folder)"
    assert choice.open().exemplars.count == 3


@pytest.mark.parametrize("kind", ["empty folder", "file", "broken link"])
def test_a_broken_model_here_is_never_replaced_by_the_shipped_one(models_folder, here, kind):
    ship(models_folder)
    model = here / "model.pscr"
    {"empty folder": model.mkdir, "file": model.touch, "broken link": lambda: model.symlink_to("gone")}[kind]()
    with pytest.raises(BundleError, match=r"model\.pscr: (no bundle\.json in it|not a bundle|no such bundle)"):
        choose_bundle(None).open()


def test_a_path_that_is_there_wins_over_a_name(models_folder, here):
    ship(models_folder)
    named = choose_bundle(DEFAULT_MODEL)
    assert (named.model, named.default) == (DEFAULT_MODEL, False)
    make_bundle(here / DEFAULT_MODEL, exemplars=2)
    found = choose_bundle(DEFAULT_MODEL)
    assert found.open().exemplars.count == 2
    assert found.describe() == f"{DEFAULT_MODEL} (the one at this path, not the shipped model of that name)"
    assert choose_bundle(named) is named  # what has been decided stays


def test_paths_and_uris_are_what_they_were(models_folder, here):
    ship(models_folder)
    assert choose_bundle("a/b.pscr").place == Path("a/b.pscr")
    assert choose_bundle(Path(DEFAULT_MODEL)).place == Path(DEFAULT_MODEL)
    assert choose_bundle("s3://bucket/model.pscr").place == StorePath("s3", "bucket", "model.pscr")
    assert choose_bundle("a/b.pscr").reason is None
    for use in (choose_bundle, lambda text: ScoreConfig("m", bundle=text)):
        with pytest.raises(UsageError, match=r"bundle https://x/y: can't be on https://"):
            use("https://x/y")


def test_neither_path_nor_name_is_one_line_with_the_names(models_folder):
    assert choose_bundle("agiqa3k").place == Path("agiqa3k")  # nothing is shipped: opening it will tell
    ship(models_folder)
    with pytest.raises(BundleError) as raised:
        choose_bundle("agiqa3k")
    assert str(raised.value) == (
        f"agiqa3k: no such bundle, and no shipped model of that name (shipped: {DEFAULT_MODEL}; did you mean "
        f"{DEFAULT_MODEL}?); make a bundle with pscr-engine export, or name one with bundle"
    )


def test_each_host_opens_its_own_copy_of_a_shipped_model(models_folder, tmp_path_factory, monkeypatch):
    bundle = ship(models_folder)
    sent = pickle.dumps(choose_bundle(None))
    there = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("pscr_engine.models.shipped.FOLDER", there)
    with pytest.raises(BundleError, match=f"{DEFAULT_MODEL}: the pscr-engine here ships no model of that name"):
        pickle.loads(sent).open()
    ship(there)
    opened = pickle.loads(sent).open()
    assert (opened.path.parent, opened.digest) == (there, bundle.digest)


def test_the_python_api_takes_names(models_folder, caplog):
    ship(models_folder)
    caplog.set_level(logging.INFO, "pscr_engine")
    expected = Scorer.open().score(IMAGE).score
    assert caplog.messages == [f"bundle {DEFAULT_MODEL} (the shipped model: no model.pscr here)"]
    assert Scorer.open(DEFAULT_MODEL).score(IMAGE).score == expected
    assert ScoreBatch(DEFAULT_MODEL, column="image")({"image": [IMAGE]})["score"][0] == pytest.approx(expected)
    make_bundle(Path("model.pscr"), exemplars=3)
    assert Scorer.open().score(IMAGE).score != expected
