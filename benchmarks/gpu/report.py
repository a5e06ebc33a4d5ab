"""Render the acceptance run's record as a page that people read."""

from __future__ import annotations

import json
from typing import Any


def markdown(record: dict[str, Any]) -> str:
    """Render a record as Markdown: checks first, then what was not run, then figures."""
    lines = [f"# {record['card']}", "", f"{record['date']}, commit {record['commit']}, pscr-engine {record['version']}"]
    sections = record["sections"].items()
    lines += ["", "| section | check | | seen |", "| --- | --- | --- | --- |"]
    for name, section in sections:
        for check, (holds, seen) in section["checks"].items():
            lines.append(f"| {name} | {check} | {'yes' if holds else '**no**'} | {_cell(seen)} |")
    lines += ["", "Not run:", ""]
    left_out = [f"- {name}: {what}: {why}" for name, section in sections for what, why in section["skipped"].items()]
    lines += left_out or ["- nothing was left out"]
    for name, section in sections:
        if section["figures"] and name != "host":
            lines += ["", f"## {name}", "", "| | |", "| --- | --- |"]
            lines += [f"| {what} | {_cell(value)} |" for what, value in section["figures"].items()]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")
