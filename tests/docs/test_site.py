"""The documentation as a site: it builds strictly, has every command and option, and asks nobody else for anything."""

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import click
import pytest

from pscr_engine.cli import cli

from ..helpers.browser import chromium

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs") if not os.environ.get("CI") else None


def build(root, site):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "site"
    process = build(ROOT, folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def checkout(tmp_path):
    """Make a checkout whose pages may be spoilt; all else is this one's."""
    for file in ROOT.iterdir():
        if file.suffix in (".md", ".yml", ".cff"):
            shutil.copy(file, tmp_path)
        elif not file.name.startswith((".venv", ".git", "docs", "site")):
            (tmp_path / file.name).symlink_to(file)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "benchmarks").unlink()
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".github").symlink_to(ROOT / ".github")
    return tmp_path


def hook(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "_site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page))


@pytest.mark.slow
def test_every_command_and_option_is_in_the_site(site):
    page = (site / "commands" / "index.html").read_text("utf-8")
    context = click.Context(cli, info_name="pscr-engine")
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    commands["bench compare"] = commands["bench"].commands["compare"]
    for name, command in commands.items():
        _, found, rest = page.partition(f'<h2 id="{name.replace(" ", "-")}">')
        assert found, name
        section = text_of(rest.partition("<h2 ")[0])
        assert " ".join(command.help.split())[:40] in " ".join(section.split())
        for option in command.params:
            if isinstance(option, click.Option):
                missing = [flag for flag in [*option.opts, *option.secondary_opts] if flag not in section]
                assert missing == [], f"{name}: {missing}"
                assert " ".join(option.help.split()) in section, f"{name} {option.opts}"


@pytest.mark.slow
def test_the_public_api_is_in_the_site(site):
    page = (site / "api" / "index.html").read_text("utf-8")
    names = ["Scorer", "Scorer.open", "Scorer.score", "Scorer.score_async", "Scorer.stream", "Scorer.score_manifest"]
    names += ["ScoredImage", "Status", "config.ScoreConfig", "runners.ray.ScoreBatch", "bundle.Bundle"]
    for name in [*names, "errors.PscrError", "errors.UsageError", "errors.TooManyFailuresError"]:
        assert f'id="pscr_engine.{name}"' in page, name


@pytest.mark.slow
def test_no_page_asks_anybody_else_for_anything(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text("utf-8")
        asked = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?((?:https?:)?//[^\s\">]+)", text)
        for tag in re.findall(r"<link\b[^>]*>", text):
            if re.search(r"rel=\"?(stylesheet|icon|preconnect|preload|modulepreload|dns-prefetch)", tag):
                asked += re.findall(r"href=\"?((?:https?:)?//[^\s\">]+)", tag)
        assert asked == [], page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("additions", "warnings"),
    [
        (
            {
                "docs/python.md": "[a](no-such-page.md), [b](../benchmarks/no-such.json), [c](faq.md#no-such-heading)",
                "benchmarks/README.md": "[d](../docs/no-such-guide.md), [e](../docs/faq.md#nor-this)",
            },
            ["no-such-page.md", "no-such.json", "no-such-heading", "no-such-guide.md", "nor-this"],
        ),
        ({"docs/python.md": "::: pscr_engine.NoSuchClass"}, ["NoSuchClass"]),
    ],
    ids=["links", "names"],
)
def test_what_leads_nowhere_ends_the_build(checkout, additions, warnings):
    for page, text in additions.items():
        with (checkout / page).open("a") as file:
            file.write(f"\n{text}\n")
    process = build(checkout, checkout / "out")
    assert process.returncode != 0
    assert [each for each in warnings if each not in process.stderr] == []


def test_an_option_or_a_command_without_help_ends_the_build():
    pytest.importorskip("mkdocs")
    from mkdocs.exceptions import PluginError

    commands = hook("commands")
    group = click.Context(cli, info_name="pscr-engine")
    with pytest.raises(PluginError, match="pscr-engine x --size has no help"):
        commands._section("x", click.Command("x", params=[click.Option(["--size"])], help="Do."), group)
    with pytest.raises(PluginError, match="pscr-engine x has no help"):
        commands._section("x", click.Command("x"), group)


def test_help_is_shown_to_the_letter():
    pytest.importorskip("mkdocs")
    commands = hook("commands")
    command = click.Command(
        "x", params=[click.Option(["--a|b", "a"], help="<b> *c* _d_ `e`")], help="Do.\n\n\b\nAs it\n  is"
    )
    section = commands._section("x", command, click.Context(cli, info_name="pscr-engine"))
    import markdown

    assert "&lt;b&gt; *c* _d_ `e`" in html.unescape(markdown.markdown(section, extensions=["def_list"])).replace(
        "<b>", "&lt;b&gt;"
    )
    assert "```text\nAs it\n  is\n```" in section


@pytest.mark.slow
def test_a_search_finds_guides_before_the_project(site):
    entries = json.loads((site / "search" / "search_index.json").read_text("utf-8"))["docs"]
    weights = {entry["location"].partition("#")[0]: entry.get("boost", 1) for entry in entries}
    behind = {page for page, weight in weights.items() if weight < 1}
    assert {"decisions/", "architecture/", "repository/changelog/", "api/"} <= behind
    assert behind.isdisjoint({"", "errors/", "scoring/", "faq/", "commands/", "output/"})


@pytest.fixture(scope="module")
def address(site):
    """Serve the site on loopback."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=site)

        def log_message(self, format, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_pages_fit_a_narrow_and_a_wide_window_and_options_are_found(site, address):
    asked = []
    with chromium() as browser:
        for width in (400, 1280):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("request", lambda request: asked.append(request.url))
            for name in ("", "commands/", "api/", "errors/", "speed/", "decisions/"):
                page.goto(address + name)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.goto(address)
        page.keyboard.press("/")
        page.keyboard.type("--retry-failed")
        page.wait_for_selector(".md-search-result__item a", timeout=20_000)
        first = page.get_attribute(".md-search-result__item a", "href")
        assert first.removeprefix(address).startswith(("scoring", "output", "errors", "commands")), first
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
