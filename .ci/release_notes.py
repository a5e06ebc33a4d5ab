"""Checks that a tag is a release's, and prints the release's notes: its part of CHANGELOG.md.

python3 .ci/release_notes.py v1.2.3, from any folder; needs nothing but Python.
"""

import re
import sys
import tomllib
from pathlib import Path


def release_notes(root: Path, tag: str) -> str:
    """Return the notes of the release that a tag names.

    Raises:
        ValueError: pyproject.toml, CITATION.cff or CHANGELOG.md is not that of this release.
    """
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but pyproject.toml has version {version}; its tag is v{version}")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    cited = {
        name: text.strip("\"'") for name, text in re.findall(r"^(version|date-released): *(\S+) *$", citation, re.M)
    }
    if cited.get("version") != version:
        raise ValueError(f"CITATION.cff has version {cited.get('version')}, not {version}")
    _, *sections = re.split(r"^## ", (root / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    heading, _, notes = sections[0].partition("\n") if sections else ("", "", "")
    named = re.fullmatch(r"(\S+) \((\d{4}-\d\d-\d\d)\)", heading.strip())
    if named is None or named[1] != version:
        raise ValueError(f"CHANGELOG.md begins with '## {heading}'; make that '## {version} (YYYY-MM-DD)'")
    if cited.get("date-released") != named[2]:
        raise ValueError(f"CITATION.cff has date-released {cited.get('date-released')}, CHANGELOG.md {named[2]}")
    if not notes.strip():
        raise ValueError(f"CHANGELOG.md has nothing about {version}")
    return notes.strip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("error: give the tag, v1.2.3 for example, and nothing else")
    try:
        sys.stdout.write(release_notes(Path(__file__).resolve().parents[1], sys.argv[1]))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")
