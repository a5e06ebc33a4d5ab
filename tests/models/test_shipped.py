import json
import os

import pytest

from pscr_engine.bundle import Bundle
from pscr_engine.errors import BundleError, OutputError
from pscr_engine.models import DEFAULT_MODEL, find_model, shipped_models
from pscr_engine.models.shipped import FOLDER, shipped_at

from ..helpers.shipped import ship


def test_models_are_found_beside_the_package_the_default_first(models_folder):
    assert shipped_models() == {}
    bundle = ship(models_folder, "another", exemplars=3)
    default = ship(models_folder)
    (models_folder / "notes.pscr").write_text("no folder")
    assert list(shipped_models()) == [DEFAULT_MODEL, "another"]
    assert find_model("another").open().digest == bundle.digest
    assert find_model(DEFAULT_MODEL).facts().bundle == default.digest
    assert find_model(DEFAULT_MODEL).card().startswith(f"# {DEFAULT_MODEL}\n")


def test_a_name_that_nothing_has_hints_at_the_nearest(models_folder):
    with pytest.raises(BundleError, match=r"x: the pscr-engine here ships no model of that name \(shipped: none\)"):
        find_model("x")
    ship(models_folder)
    for near in ("agiqa3k-lite", "AGIQA3K-lite0", f"{DEFAULT_MODEL}.pscr"):
        with pytest.raises(BundleError, match=rf"\(shipped: {DEFAULT_MODEL}; did you mean {DEFAULT_MODEL}\?\)"):
            find_model(near)


def test_facts_about_another_bundle_are_refused(models_folder):
    ship(models_folder)
    path = models_folder / f"{DEFAULT_MODEL}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bundle": "0" * 64}))
    with pytest.raises(BundleError, match="is about another bundle"):
        find_model(DEFAULT_MODEL).facts()


def test_a_damaged_model_says_how_to_mend_it(models_folder):
    ship(models_folder)
    (models_folder / f"{DEFAULT_MODEL}.pscr" / "exemplars.parquet").unlink()
    (models_folder / f"{DEFAULT_MODEL}.md").unlink()
    with pytest.raises(BundleError, match=rf"the shipped model {DEFAULT_MODEL}: install pscr-engine again \("):
        find_model(DEFAULT_MODEL).open()
    with pytest.raises(BundleError, match="the model card can't be read"):
        find_model(DEFAULT_MODEL).card()


def test_a_copy_is_a_bundle_of_its_own(models_folder, tmp_path):
    bundle = ship(models_folder)
    plans = bundle.path / "plans"
    plans.mkdir()
    (plans / "x.plan").write_bytes(b"x" * 1000)
    model = find_model(DEFAULT_MODEL)
    assert model.size() == sum(file.stat().st_size for file in bundle.path.iterdir() if file.is_file())
    for file in bundle.path.iterdir():
        file.chmod(0o555 if file.is_dir() else 0o444)
    copied = model.copy(tmp_path / "new" / "model.pscr")
    assert copied.digest == bundle.digest
    assert {file.name for file in copied.path.iterdir()} == {file.name for file in bundle.path.iterdir()} - {"plans"}
    assert all(file.stat().st_mode & 0o200 for file in copied.path.iterdir())
    with pytest.raises(OutputError, match="is there already; choose another folder to copy to"):
        model.copy(tmp_path / "new" / "model.pscr")
    os.symlink("nowhere", tmp_path / "link")
    with pytest.raises(OutputError, match="is there already"):
        model.copy(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written"):
        model.copy(tmp_path / "file" / "model.pscr")


def test_a_bundle_knows_whether_it_is_shipped(models_folder, tmp_path):
    bundle = ship(models_folder)
    assert shipped_at(bundle.path).name == DEFAULT_MODEL
    copied = find_model(DEFAULT_MODEL).copy(tmp_path / f"{DEFAULT_MODEL}.pscr")
    assert shipped_at(copied.path) is None


@pytest.mark.parametrize("name", [path.stem for path in sorted(FOLDER.glob("*.pscr"))])
def test_what_is_really_shipped_is_whole(name):
    model = find_model(name)
    bundle, facts = model.open(), model.facts()
    assert isinstance(bundle, Bundle)
    assert set(facts.figures) <= set(bundle.info.graphs)
    assert model.card().startswith("# ")
    assert model.size() < 30e6
    assert not (model.path / "plans").exists()
