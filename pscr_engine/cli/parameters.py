"""What several commands' options have in common."""

from __future__ import annotations

from collections.abc import Callable

import click

from ..stores.uri import Place, place


def to_place(context: click.Context, parameter: click.Parameter, value: str) -> Place:
    """A callback for options that take a path, or the URI of a place in an object store."""
    return place(value, parameter.opts[0])


def number_or(word: str) -> Callable[[click.Context, click.Parameter, str], int | None]:
    """A callback for options that take a whole number, or `word`, which becomes None."""

    def convert(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
        if value == word:
            return None
        try:
            return int(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither a number nor {word}") from None

    return convert
