"""Lets the site hold what its pages link to outside docs/: pages become pages, other files are copied.

So a link is written once, relative to its file, and holds on GitHub and in the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add every file of the repository that a page links to, and what those pages link to in turn."""
    docs = Path(config["docs_dir"])
    root = docs.parent
    named = [Path(name) for name in re.findall(r"\.\./(\S+\.md)", str(config["nav"]).replace("'", " "))]
    pages = [docs / file.src_uri for file in files.documentation_pages()] + [root / name for name in named]
    for name in named:
        _add(files, root, name, config)
    while pages:
        page = pages.pop()
        for link in _LINK.findall(page.read_text("utf-8")):
            target = Path(posixpath.normpath(page.parent / link))
            if target.is_relative_to(docs) or not target.is_relative_to(root) or not target.is_file():
                continue  # MkDocs judges what is not there
            name = target.relative_to(root)
            if _add(files, root, name, config) and name.suffix == ".md":
                pages.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links of pages outside docs/ that lead into it start from the site's root: MkDocs has no name for docs/."""
    source = Path(page.file.abs_src_path)
    docs = Path(config["docs_dir"])
    if source.is_relative_to(docs):
        return markdown

    def from_root(found: re.Match[str]) -> str:
        target = Path(posixpath.normpath(source.parent / found[1]))
        return f"](/{target.relative_to(docs)}" if target.is_relative_to(docs) else found[0]

    return _LINK.sub(from_root, markdown)


def _add(files: Files, root: Path, name: Path, config: Any) -> bool:
    """Add a file under the name by which links find it, `../NAME`; False if it is there."""
    uri = posixpath.join("..", name.as_posix())
    if files.get_file_from_path(uri) is not None:
        return False
    at = posixpath.join("repository", name.as_posix())
    if name.suffix == ".md":
        at = posixpath.join(at.removesuffix(".md").lower(), "index.html")
    file = File(uri, None, config["site_dir"], config["use_directory_urls"], dest_uri=at)
    file.abs_src_path = str(root / name)
    file.inclusion = InclusionLevel.INCLUDED
    files.append(file)
    return True
