"""Open the report's page in Chromium, and keep what goes wrong on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .browser import CHROMIUM, chromium

__all__ = ["Watched", "chromium", "needs_chromium"]

needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists() and not os.environ.get("CI"), reason="needs Debian's chromium: apt-get install chromium"
)


class Watched:
    """A page that is open, and all that went wrong on it: messages, errors, dialogs, requests, blocked things."""

    def __init__(self, browser, path: Path, *, scheme: str = "light", width: int = 1280) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.troubles.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)

    def _dialog(self, dialog) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @property
    def foreign_requests(self) -> list[str]:
        """Return the addresses that were asked for, but for the file itself and the pictures in it."""
        return [url for url in self.requests if url != self.url and not url.startswith("data:image/jpeg;base64,")]

    def close(self) -> None:
        self.context.close()
