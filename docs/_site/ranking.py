"""Lets a search find what users read before what maintainers read: decisions and architecture have most words."""

from __future__ import annotations

from typing import Any

# Page, or part of the navigation → its weight. A word in a title weighs a thousand times as much as one in a text.
WEIGHTS = {"Project": 0.001, "Python API": 0.01}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Give a page the weight that it, or its part of the navigation, has in searches."""
    for named in (page, *page.ancestors):
        if named.title in WEIGHTS:
            page.meta["search"] = {"boost": WEIGHTS[named.title]}
    return markdown
