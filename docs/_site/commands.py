"""Puts the commands' own help, read from click, where commands.md says so; an option without help ends the build."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click
from mkdocs.exceptions import PluginError

MARK = "<!-- commands: from here on the site has what the program says -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put a section per command in place of what is below the mark."""
    if MARK not in markdown:
        return markdown
    from pscr_engine.cli import cli

    group = click.Context(cli, info_name="pscr-engine")
    return markdown.partition(MARK)[0] + "\n\n".join(_sections(cli, group))


def _sections(group: click.Group, context: click.Context, above: str = "") -> Iterator[str]:
    """Yield a section per command of a group, and those of commands that are groups themselves after them."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield _section(f"{above}{name}", command, context)
        if isinstance(command, click.Group):
            yield from _sections(command, click.Context(command, info_name=name, parent=context), f"{above}{name} ")


def _section(name: str, command: click.Command | None, group: click.Context) -> str:
    if command is None or not command.help:
        raise PluginError(f"pscr-engine {name} has no help")
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=group)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {name}", f"```text\n{usage}\n```", _prose(command.help)]
    rows = [_row(name, option, context) for option in command.params if isinstance(option, click.Option)]
    if rows:
        parts += rows
    return "\n\n".join(parts)


def _row(name: str, option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    if record is None or not option.help:
        raise PluginError(f"pscr-engine {name} {option.opts[0]} has no help")
    names, text = record
    return f"<code>{_plain(names)}</code>\n:   {_plain(text)}"


def _prose(text: str) -> str:
    """Return a help text as Markdown: paragraphs that click leaves as they are (`\\b`) become blocks."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).partition("\f")[0].split("\n\n"):
        kept = paragraph.startswith("\b")
        lines = paragraph.removeprefix("\b").strip("\n").rstrip()
        paragraphs.append(f"```text\n{lines}\n```" if kept else _plain(lines))
    return "\n\n".join(paragraphs)


def _plain(text: str) -> str:
    """Return text as Markdown that shows it to the letter."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]{}#])", lambda found: f"&#{ord(found[1])};", " ".join(text.split()))
