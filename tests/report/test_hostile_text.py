"""Markup in paths, identifiers, errors, groups, prompts and settings stays text."""

import csv
import json
import socketserver
import threading

import pyarrow as pa
import pytest

from pscr_engine.output.parts import Parts
from pscr_engine.report.report import ReportConfig, report

from ..helpers.images import encoded, pixels
from ..helpers.report_page import Watched, chromium, needs_chromium
from ..helpers.runs import make_run

pytestmark = [needs_chromium, pytest.mark.medium]

PAYLOADS = [
    "<script>window.owned = 1; alert(1)</script>",
    "</script><script>window.owned = 2; alert(2)</script>",
    "<img src=x onerror='window.owned = 3; alert(3)'>",
    "\"><svg onload='window.owned = 4; alert(4)'>",
    "' onmouseover='window.owned = 5' autofocus onfocus='alert(5)' x='",
    "<iframe src='http://127.0.0.1:PORT/frame'></iframe>",
    "<link rel=stylesheet href='http://127.0.0.1:PORT/css'><img src='http://127.0.0.1:PORT/image'>",
    "javascript:alert(6)",
    "{{ 7 * 7 }}{% raw %}${alert(8)}`",
    "<!--<script>--><base href='http://127.0.0.1:PORT/'><form action='http://127.0.0.1:PORT/'><meta http-equiv=refresh "
    "content='0;url=http://127.0.0.1:PORT/'>",
    "</style></title></textarea></noscript></template><h1 id=injected>owned</h1>",
    "\u2028\u2029 alert(9) \ud7ff \u202egnp.cod",
]


@pytest.fixture
def listener():
    """Listen on loopback; yields the port, and the list of calls."""
    calls = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            calls.append(self.request.recv(1000))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], calls
        server.shutdown()


def hostile_run(folder, port):
    payloads = [payload.replace("PORT", str(port)) for payload in PAYLOADS]
    count = len(payloads)
    with (folder / "m.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "id", "<b>model</b>", "prompt"])
        for row in range(4 * count):
            payload = payloads[row % count]
            lines.writerow([payload if row % 2 else "good.png", payload, payload, payload])
    (folder / "good.png").write_bytes(encoded(pixels(50, 50)))
    scores = [None if row % 4 == 3 else float(row) for row in range(4 * count)]
    errors = {row: ("undecodable", payloads[row % count]) for row in range(4 * count)}
    name = "scores <img src=x onerror=alert(1)>"
    run = make_run(folder / name, folder / "m.csv", scores, errors=errors, chunk_rows=16)
    facts = json.loads((run / "_run.json").read_text())
    facts["bundle"].update(backbone=payloads[0], precision=payloads[2])
    facts["host"]["name"] = payloads[1]
    facts["settings"]["bundle"] = payloads[4]
    (run / "_run.json").write_text(json.dumps(facts))
    other = make_run(
        folder / "other '\"><script>alert(1)</script>".replace("/", "\u2215"),
        folder / "m.csv",
        [None if score is None else score + (-1) ** row for row, score in enumerate(scores)],
        bundle=payloads[3],
    )
    return ReportConfig(run, folder / "report.html", by="<b>model</b>", caption="prompt", compare=other), payloads


def elements(page):
    return page.evaluate(
        """() => ({
            owned: window.owned ?? null,
            scripts: document.scripts.length,
            foreign: document.querySelectorAll('iframe, link, base, form[action], object, embed, #injected, b').length,
            images: [...document.images].filter((image) => !image.src.startsWith('data:image/jpeg;base64,')).length,
            handlers: [...document.querySelectorAll('*')].filter((element) =>
                [...element.attributes].some((attribute) => attribute.name.startsWith('on'))).length,
            styles: document.querySelectorAll('style').length,
            headings: document.querySelectorAll('h1').length,
        })"""
    )


INERT = {"owned": None, "scripts": 2, "foreign": 0, "images": 0, "handlers": 0, "styles": 1, "headings": 1}


def test_hostile_text_is_only_text(tmp_path, listener):
    port, calls = listener
    config, payloads = hostile_run(tmp_path, port)
    report(config)
    with chromium() as browser:
        watched = Watched(browser, config.out)
        page = watched.page
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        for button in page.locator("button:not(:disabled)").all():
            button.click()
        page.mouse.move(300, 300)
        page.wait_for_timeout(200)
        assert elements(page) == INERT
        text = page.locator("body").text_content()
        for payload in payloads[:5]:
            assert payload in text  # shown, as it is
        assert page.locator("#groups tbody tr").count() == len(payloads)
        assert watched.troubles == []
        assert watched.foreign_requests == []
        watched.close()
    assert calls == []


def test_the_policy_holds_where_escaping_would_fail(tmp_path, listener):
    """Write text into the page as it is: nothing in it runs, loads or sends."""
    port, calls = listener
    config, payloads = hostile_run(tmp_path, port)
    report(config)
    html = config.out.read_text(encoding="utf-8")
    unescaped = "".join(payload for payload in payloads if "refresh" not in payload)
    config.out.write_text(html.replace("<main", f"{unescaped}<main", 1), encoding="utf-8")
    with chromium() as browser:
        watched = Watched(browser, config.out)
        watched.page.wait_for_timeout(300)
        assert watched.page.evaluate("window.owned ?? null") is None
        assert elements(watched.page)["foreign"] > 0  # it was markup indeed
        assert watched.troubles
        assert all("Content Security Policy" in trouble for trouble in watched.troubles)
        watched.close()
    assert calls == []


def test_parts_that_somebody_has_tampered_with_are_only_text(tmp_path):
    (tmp_path / "m.csv").write_text("path\na.png\n")
    run = make_run(tmp_path / "scores", tmp_path / "m.csv", [3.0])
    table = Parts(run).read(0)
    hostile = PAYLOADS[2]
    for column in ("path", "status", "error"):
        table = table.set_column(table.schema.get_field_index(column), column, pa.array([hostile]))
    Parts(run).write(0, table)
    report(ReportConfig(run, tmp_path / "report.html"))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=" in html
