"""Open pages in Debian's Chromium, which must be there in CI and may be absent elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Seen:
    """What happened while a page was open.

    Args:
        messages: the console's, and errors of scripts.
        requests: addresses asked for, but for the page's own and data: URIs.
    """

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium; without it the test is skipped, or fails in CI."""
    if not CHROMIUM.exists():
        if os.environ.get("CI"):
            pytest.fail(f"no {CHROMIUM}: apt-get install chromium")
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, file: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[tuple[Any, Seen]]:
    """Open a file; yields the page and what it did."""
    context, seen = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme), Seen()
    page = context.new_page()
    page.on("console", lambda message: seen.messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.messages.append(f"error: {error}"))
    address = file.resolve().as_uri()
    page.on(
        "request",
        lambda request: (
            seen.requests.append(request.url) if request.url != address and request.url[:5] != "data:" else None
        ),
    )
    page.goto(address)
    yield page, seen
    context.close()


def faults(page: Any) -> list[str]:
    """List the serious and critical accessibility faults that axe-core finds on a page."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in Axe().run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
