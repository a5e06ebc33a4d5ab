"""Links between Markdown pages hold where GitHub shows them: each names a file that there is, and a heading in it."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/*.md", "tests/*.md", "pscr_engine/models/*.md")
    for page in ROOT.glob(pattern)
)


def without_code(text):
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page):
    """Return the anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = [heading.strip().lower() for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_hold(page):
    broken = []
    for link in re.findall(r"\]\((?![a-z]+:)([^)\s]+)", without_code(page.read_text("utf-8"))):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.resolve())):
            broken.append(link)
    assert broken == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_every_page_can_be_reached_from_the_readme():
    reached, to_read = set(), [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+\.md)", page.read_text("utf-8"))
            to_read += [(page.parent / link).resolve() for link in links]
    assert set(ROOT.glob("docs/*.md")) - reached == set()
