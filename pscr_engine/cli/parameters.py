"""What several commands' options have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..stores.uri import Place, place

Command = TypeVar("Command", bound=Callable[..., Any])


def to_place(context: click.Context, parameter: click.Parameter, value: str) -> Place:
    """A callback for options that take a path, or the URI of a place in an object store."""
    return place(value, parameter.opts[0])


def bundle_option(help: str = "What pscr-engine export made.") -> Callable[[Command], Command]:
    """Make the option --bundle of commands that fall back on the shipped model.

    Args:
        help: what the bundle is to the command.
    """
    return click.option(
        "--bundle",
        metavar="NAME|PATH|URI",
        help=f"{help} NAME: a shipped model's.  [default: model.pscr if it is here, else the shipped model]",
    )


def number_option(flag: str, word: str, *, help: str) -> Callable[[Command], Command]:
    """An option that takes a whole number, or `word`, which it is by default and which becomes None."""

    def convert(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
        if value == word:
            return None
        try:
            return int(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither a number nor {word}") from None

    return click.option(flag, default=word, show_default=True, callback=convert, help=help)
