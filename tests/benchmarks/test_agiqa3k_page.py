import json

from benchmarks.agiqa3k import page
from benchmarks.agiqa3k.recipes import RECIPES, SHIPPED, Place, config
from benchmarks.common import RESULTS
from benchmarks.marked import shown
from pscr_engine.models import DEFAULT_MODEL, shipped_models


def test_the_page_is_made_from_the_records():
    """Check that the figures in docs/agiqa-3k.md are those of the records, not typed in."""
    assert page.PAGE.read_text(encoding="utf-8") == page.page()


def test_the_tables_of_accuracy_are_made_from_the_facts():
    for file in page.ACCURACY:
        assert shown(file, page.BEGIN, page.END) == page.accuracy()


def test_the_tables_of_early_decisions_are_made_from_the_record():
    assert shown(page.EARLY, page.EARLY_BEGIN, page.EARLY_END) == page.early()


def test_every_recipe_is_a_training_that_can_be_asked_for(tmp_path):
    for name in RECIPES:
        settings = config(name, Place(tmp_path, tmp_path), "none")
        assert settings.out == tmp_path / name
        assert settings.split == RECIPES[name]["split"]


def test_the_record_says_what_was_left_out_and_what_is_missing():
    recorded = json.loads((RESULTS / "agiqa-3k.json").read_text())
    assert set(recorded["models"]) | set(recorded["not trained yet"]) == set(RECIPES)
    shipped = recorded["models"][SHIPPED]
    assert shipped["images"] == {"train": 2140, "val": 235, "test": 600}
    assert shipped["test images with a prompt that was trained on"] == 0
    assert "midjourney_normal_094.jpg" in shipped["left out as copies"]


def test_the_cards_figures_are_the_facts():
    model = shipped_models()[DEFAULT_MODEL]
    card, facts = model.card(), model.facts()
    for precision, figures in facts.figures.items():
        assert f"| {precision} | {page.interval(list(figures.srcc))} |" in card
