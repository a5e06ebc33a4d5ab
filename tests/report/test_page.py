"""The page in a browser: nothing but the file is asked for, and all of it works."""

import csv
import json
import re
import shlex
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pscr_engine.report.report import ReportConfig, report

from ..helpers.images import encoded, pixels
from ..helpers.report_page import Watched, chromium, needs_chromium
from ..helpers.runs import make_run

pytestmark = [needs_chromium, pytest.mark.medium]

ROWS = 300
PROMPTS = ["a cat", "two dogs on a wide, wide meadow under a stormy sky", "a lighthouse"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a run with groups, failures, images that are gone, and another run to compare with."""
    folder = tmp_path_factory.mktemp("page")
    dice = np.random.default_rng(0)
    for image in range(20):
        (folder / f"{image}.png").write_bytes(encoded(pixels(40 + image, 60, image)))
    with (folder / "m.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "model", "prompt"])
        for row in range(ROWS):
            lines.writerow([f"{row % 25}.png", "abcd"[row % 4], PROMPTS[row % 3]])
    scores = [None if row % 30 == 7 else float(score) for row, score in enumerate(dice.normal(3, 0.7, ROWS))]
    errors = {row: ("undecodable", f"truncated after {row} bytes") for row in range(7, ROWS, 60)}
    stds = dice.uniform(0.2, 0.9, ROWS).tolist()
    make_run(folder / "scores", folder / "m.csv", scores, stds=stds, errors=errors, chunk_rows=64)
    other = [None if score is None else score + float(dice.normal(0.1, 0.2)) for score in scores]
    make_run(folder / "other", folder / "m.csv", other, stds=stds, chunk_rows=50, bundle="c" * 64)
    config = ReportConfig(
        folder / "scores", folder / "report.html", by="model", caption="prompt", compare=folder / "other"
    )
    report(config)
    return folder, scores


@pytest.fixture
def opened(browser, place):
    watched = Watched(browser, place[0] / "report.html")
    yield watched.page
    watched.close()
    assert watched.troubles == []
    assert watched.foreign_requests == []


def table(page, section):
    rows = page.locator(f"#{section} table.sortable tbody tr").all()
    return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]


def kept(place, threshold):
    scores = np.array([score for score in place[1] if score is not None], np.float32)
    return int((scores >= np.float32(threshold)).sum())


def shown(page):
    """Read how many images the page says are kept, and at which threshold."""
    text = page.locator("#keep-out").inner_text()
    found = re.fullmatch(r"keeps ([\d,]+) of ([\d,]+) images \(([\d.]+)%\) with score ≥ (\S+)", text)
    assert found, text
    return int(found[1].replace(",", "")), found[4]


def test_the_slider_counts_exactly(opened, place):
    slider = opened.locator("#slider")
    slider.focus()
    seen = set()
    for key in ("Home", "ArrowRight", "PageUp", "ArrowRight", "PageUp", "PageUp", "End", "PageDown"):
        opened.keyboard.press(key)
        count, threshold = shown(opened)
        assert count == kept(place, threshold)
        assert slider.get_attribute("aria-valuetext") == opened.locator("#keep-out").inner_text()
        assert opened.locator("#threshold").input_value() == threshold
        clip = float(opened.locator("#kept-rect").get_attribute("x"))
        seen.add((count, threshold, clip))
    assert len(seen) > 6
    assert [clip for *_, clip in sorted(seen, key=lambda each: float(each[1]))] == sorted(clip for *_, clip in seen)


@pytest.mark.parametrize("share", [1, 5, 10, 25, 50, 75])
def test_buttons_keep_the_share_they_name(opened, place, share):
    opened.get_by_role("button", name=f"Keep the best {share}%", exact=True).click()
    count, threshold = shown(opened)
    assert count == kept(place, threshold) == -(-share * 290 // 100)


def test_a_typed_threshold_counts_exactly_or_says_between_what(opened, place):
    field = opened.locator("#threshold")
    field.fill("3")
    field.press("Enter")
    assert shown(opened) == (kept(place, 3), "3")
    for text, count in (("-7", 290), ("99.5", 0), ("3.00037", kept(place, 3.00037))):
        field.fill(text)
        field.press("Enter")
        assert shown(opened) == (count, text)
    field.fill("three")
    field.press("Enter")
    assert field.get_attribute("aria-invalid") == "true"
    assert "must be a number" in opened.locator("#keep-note").inner_text()
    field.fill("2.5")
    field.press("Enter")
    assert field.get_attribute("aria-invalid") is None
    assert shown(opened) == (kept(place, 2.5), "2.5")


@pytest.mark.parametrize("share", [1, 10, 50])
def test_the_filters_keep_what_the_page_says(opened, tmp_path, share):
    opened.get_by_role("button", name=f"Keep the best {share}%", exact=True).click()
    count, threshold = shown(opened)
    line = opened.locator("#code-duckdb").inner_text()
    assert f"'{threshold}'" in line
    assert len(duckdb.sql(line).fetchall()) == count
    kept = eval(opened.locator("#code-pyarrow").inner_text(), {"pyarrow": pyarrow})
    assert kept.num_rows == count
    command = shlex.split(opened.locator("#code-select").inner_text())
    assert command[0] == "pscr-engine"
    subprocess.run([sys.executable, "-m", "pscr_engine", *command[1:]], cwd=tmp_path, check=True, capture_output=True)
    assert pq.read_table(tmp_path / "kept.parquet").column("row").to_pylist() == kept.column("row").to_pylist()


def test_lines_are_copied_with_and_without_permission(browser, place):
    for granted in (True, False):
        watched = Watched(browser, place[0] / "report.html")
        page = watched.page
        if granted:
            watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
        else:
            page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('denied'); }; }")
        page.get_by_role("button", name="Copy the line for DuckDB").click()
        page.wait_for_function("document.getElementById('copied').textContent !== ''")
        assert page.locator("#copied").inner_text() in ("Copied.", "Selected: press Control C to copy.")
        if granted:
            copied = page.evaluate("navigator.clipboard.readText()")
        else:
            copied = page.evaluate("window.getSelection().toString()")
        assert copied == page.locator("#code-duckdb").inner_text()
        assert watched.troubles == []
        watched.close()


def test_tables_are_sorted_by_clicks_and_keys(opened):
    assert [row[:3] for row in table(opened, "failures")] == [
        ["missing", "no such file", "5"],
        ["undecodable", "truncated after … bytes", "5"],
    ]
    heading = opened.locator("#groups th", has_text="Median")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    medians = [float(row[4]) for row in table(opened, "groups")]
    assert medians == sorted(medians, reverse=True)
    opened.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(row[4]) for row in table(opened, "groups")] == sorted(medians)
    names = opened.locator("#groups th", has_text="Group")
    names.get_by_role("button").click()
    assert [row[0] for row in table(opened, "groups")] == ["a", "b", "c", "d"]
    assert heading.get_attribute("aria-sort") == "none"
    opened.locator("#failures th", has_text="Status").get_by_role("button").click()
    opened.locator("#failures th", has_text="Status").get_by_role("button").click()
    assert [row[0] for row in table(opened, "failures")] == ["undecodable", "missing"]


def test_galleries_show_the_right_images(opened, place):
    scores = {row: score for row, score in enumerate(place[1]) if score is not None}
    best = sorted(scores, key=lambda row: -scores[row])[:12]
    gallery = opened.locator("#images .gallery").first
    assert [re.match(r"row (\d+):", text)[1] for text in gallery.locator(".path").all_inner_texts()] == list(
        map(str, best)
    )
    assert gallery.locator(".caption").all_inner_texts() == [PROMPTS[row % 3] for row in best]
    pictures = gallery.locator("li")
    for place_, row in enumerate(best):
        there = row % 25 < 20
        assert pictures.nth(place_).locator("img").count() == there
        assert pictures.nth(place_).locator(".placeholder").count() == (not there)
    texts = opened.evaluate("[...document.images].map(image => image.alt)")
    assert texts
    assert all(re.match(r"row \d+, score ", text) for text in texts)
    opened.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_the_comparison_tells_what_has_changed(opened):
    section = opened.locator("#compare").inner_text()
    assert "Compared with other" in section
    for expected in ("SRCC", "Risen most", "Fallen most", "Quantiles of the change"):
        assert expected in section
    assert "cccccccccccccccc…" in section


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, place, scheme):
    from axe_playwright_python.sync_playwright import Axe

    for width in (1280, 390):
        # axe is put into the page as a script, which the page's policy forbids
        window = {"width": width, "height": 900}
        context = browser.new_context(viewport=window, color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.goto((place[0] / "report.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        found = Axe().run(page).response["violations"]
        assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found] == []
        context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser, place, width):
    watched = Watched(browser, place[0] / "report.html", width=width)
    assert watched.page.evaluate("document.documentElement.scrollWidth") == width
    watched.close()


def test_without_javascript_everything_but_the_slider_is_there(browser, place):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((place[0] / "report.html").as_uri())
    assert "The slider needs JavaScript." in page.locator("#keep").inner_text()
    count, threshold = shown(page)
    assert count == kept(place, threshold)
    assert page.locator("#slider").is_disabled()
    assert page.locator("#failures tbody tr").count() == 2
    context.close()


def test_the_table_of_thresholds_is_exact(place):
    html = (place[0] / "report.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1])
    assert len(data["thresholds"]) > 290
    assert data["kept"] == [kept(place, text) for text in data["thresholds"]]
    assert data["scored"] == 290
