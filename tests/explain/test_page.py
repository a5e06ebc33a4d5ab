import hashlib
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine import Scorer
from pscr_engine.errors import MissingDependencyError, OutputError, UsageError
from pscr_engine.explain.save import save

from ..helpers.browser import chromium, faults, opened
from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

pytestmark = pytest.mark.medium

HOSTILE = "</title><script>document.title='run'</script>\"'><img src=x onerror=alert(1)>{{7*7}}.png"


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture
def scorer(tmp_path):
    """Open a scorer of five exemplars, of which one is there, one is another file, and three are not there."""
    bundle = make_bundle(tmp_path / "m.pscr")
    content = encoded(pixels(60, 90, seed=9))
    (tmp_path / "exemplar.png").write_bytes(content)
    (tmp_path / "changed.png").write_bytes(content)
    digests = [hashlib.sha256(content).hexdigest(), *["0" * 64] * 4]
    paths = ["exemplar.png", "changed.png", HOSTILE, "a/very/long/" + "path" * 30 + ".png", "日本.png"]
    pq.write_table(pa.table({"path": paths, "sha256": digests}), bundle.path / "exemplars.parquet")
    return Scorer(bundle, Scorer.open(make_bundle(tmp_path / "whole.pscr").path, device="cpu").backend)


def table(page, caption):
    rows = page.locator("table", has=page.locator("caption", has_text=caption)).locator("tbody tr").all()
    return [[cell.inner_text().strip() for cell in row.locator("th, td").all()] for row in rows]


def test_the_page_says_what_the_explanation_does(browser, scorer, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(pixels(96, 128)))
    explanation = scorer.explain(tmp_path / "a.png")
    explanation.save(tmp_path / "page.html", tmp_path)
    with opened(browser, tmp_path / "page.html") as (page, seen):
        rows = table(page, "Score of each patch")
        assert [row[0] for row in rows] == [str(number) for number in range(1, 10)]
        assert [row[1] for row in rows][:4] == ["0, 0", "50, 0", "96, 0", "0, 33"]
        assert [float(row[2]) for row in rows] == pytest.approx(
            [patch.score for patch in explanation.patches], abs=5e-4
        )
        differences = [float(row[3].replace("−", "-").replace("±", "")) for row in rows]
        assert differences == pytest.approx(
            [patch.score - explanation.score for patch in explanation.patches], abs=6e-4
        )
        text = page.inner_text("main")
        assert "the head applied to that patch's own feature" in text
        assert "not linear" in text
        assert f"the mean of the patch scores, {explanation.mean_patch_score:.3f}, need not equal" in text
        assert f"Score\n{explanation.score:.3f}" in text

        near = table(page, "The 5 nearest exemplars")
        assert [row[0].splitlines()[-1] for row in near] == [exemplar.path for exemplar in explanation.nearest]
        assert [float(row[2]) for row in near] == pytest.approx([e.label for e in explanation.nearest], abs=5e-4)
        said = {row[0].splitlines()[-1]: row[0].splitlines()[0] for row in near}
        assert said["changed.png"] == "another file is there"
        assert said["日本.png"] == "image not found"
        assert page.locator("img.thumbnail").count() == 1
        assert page.locator("img.thumbnail").evaluate("image => image.naturalWidth") == 90
        badges = page.locator(".badge text").all_text_contents()
        assert badges[1::2] == [row[2] for row in rows]
        assert page.locator("svg.picture image").evaluate("image => image.getBBox().width") == 128
    assert (seen.messages, seen.requests) == ([], [])


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits(browser, scorer, tmp_path, width, scheme):
    save([scorer.explain(pixels(96, 128)), scorer.explain(pixels(300, 33))], tmp_path / "page.html", tmp_path)
    with opened(browser, tmp_path / "page.html", width=width, scheme=scheme) as (page, seen):
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("section").count() == 2
        assert page.locator("nav a").count() == 2
        page.locator("nav a").last.click()
        assert page.evaluate("window.scrollY") > 0
    assert (seen.messages, seen.requests) == ([], [])


def test_names_are_text_and_nothing_else(browser, scorer, tmp_path):
    image = tmp_path / HOSTILE.replace("/", "\N{DIVISION SLASH}")
    image.write_bytes(encoded(pixels(40, 40)))
    scorer.explain(image).save(tmp_path / "page.html", tmp_path)
    with opened(browser, tmp_path / "page.html") as (page, seen):
        assert page.title() == f"How {image} is scored"
        assert page.locator("script, img[src='x']").count() == 0
        assert page.inner_text("h2") == str(image)
        assert HOSTILE in page.inner_text("main")
        # Were there a script after all, it would not run.
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x'}))"
        )
        page.wait_for_timeout(100)
        assert "Content Security Policy" in seen.messages[0]
    assert len(seen.messages) == 1


def test_an_image_without_a_grid(browser, tmp_path):
    scorer = Scorer.open(make_bundle(tmp_path / "none.pscr", sampling="none").path, device="cpu")
    scorer.explain(pixels(50, 80), nearest=0).save(tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html", width=390) as (page, seen):
        text = page.inner_text("main")
        assert "There is one patch" in text
        assert "Nearest exemplars" not in text
        assert len(table(page, "Score of each patch")) == 1
        assert faults(page) == []
    assert (seen.messages, seen.requests) == ([], [])


def test_the_same_explanation_gives_the_same_file(scorer, tmp_path):
    explanation = scorer.explain(pixels(50, 80))
    explanation.save(tmp_path / "1.html")
    explanation.save(tmp_path / "2.html")
    first = (tmp_path / "1.html").read_bytes()
    assert first == (tmp_path / "2.html").read_bytes()
    assert not re.search(rb"https?://", first)


def test_where_it_cannot_be_written_it_says_so(scorer, tmp_path, monkeypatch):
    explanation = scorer.explain(pixels(50, 80))
    for name, error, message in (
        ("page.pdf", UsageError, r"page\.pdf: .*name it \*\.html or \*\.png"),
        ("page", UsageError, r"name it \*\.html"),
        ("none/page.html", OutputError, "none: no such folder; make it"),
        ("folder.html", OutputError, r"folder\.html: is a folder; name the file of the explanation"),
    ):
        (tmp_path / "folder.html").mkdir(exist_ok=True)
        with pytest.raises(error, match=message):
            explanation.save(tmp_path / name)
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pscr-engine\[report\]'"):
        explanation.save(tmp_path / "page.html")
    explanation.save(tmp_path / "page.png")
    assert sorted(file.name for file in tmp_path.glob("*page*")) == ["page.png"]
