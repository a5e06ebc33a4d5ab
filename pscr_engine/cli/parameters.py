"""Options that several commands have, and what converts their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..stores.uri import Place, place

Command = TypeVar("Command", bound=Callable[..., Any])


def to_place(context: click.Context, parameter: click.Parameter, value: str) -> Place:
    """Convert the value of an option that takes a path, or a URI of an object store (a click callback)."""
    return place(value, parameter.opts[0])


def to_places(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Place, ...]:
    """Convert the values of an option that may be given several times, as `to_place` does."""
    return tuple(to_place(context, parameter, value) for value in values)


def default_option(
    flag: str, default: Any, help: str, *, short: str = "", name: str | None = None, **settings: Any
) -> Callable[[Command], Command]:
    """Make an option whose default is shown in the help.

    Args:
        flag: "--rounds" for example.
        default: its value if it isn't given.
        help: the text of the help.
        short: "-o" for example.
        name: the parameter's name, if it isn't the flag's.
        **settings: more for `click.option`.
    """
    names = [each for each in (flag, short, name) if each]
    return click.option(*names, default=default, show_default=True, help=help, **settings)


def one_bundle(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    """Return the one value of an option --bundle; more than one are refused (a click callback)."""
    if len(values) > 1:
        raise click.UsageError(f"--bundle is given {len(values)} times, and {context.info_name} takes one: give one")
    return values[0] if values else None


def bundle_option(
    help: str = "What pscr-engine export made.", *, several: str | None = None
) -> Callable[[Command], Command]:
    """Make the option --bundle of commands that fall back on the shipped model.

    Args:
        help: the first sentence of the option's help.
        several: what it means to give it several times; None for commands that take one bundle.
    """
    return click.option(
        "--bundle",
        "-b",
        multiple=True,
        callback=one_bundle if several is None else None,
        metavar="NAME|PATH|URI" if several is None else "[COLUMN=]NAME|PATH|URI",
        help=f"{help} NAME: a shipped model's. {several or ''} "
        "[default: model.pscr if it is here, else the shipped model]",
    )


def precision_option(help: str, *more: str) -> Callable[[Command], Command]:
    """Make the option --precision: "auto", one of the bundle's precisions, or one of `more`."""
    from ..bundle import PRECISIONS

    choices = click.Choice(["auto", *more, *PRECISIONS])
    return default_option("--precision", "auto", help, type=choices)


def out_option(default: str, help: str) -> Callable[[Command], Command]:
    """Make the option --out of commands that write one file or folder on this host."""
    return default_option("--out", default, help, short="-o", type=click.Path(path_type=Path))


def moved_manifest_option() -> Callable[[Command], Command]:
    """Make the option --manifest of commands that read a run."""
    return click.option(
        "--manifest", "-m", help="Where the manifest is now.  [default: where it was when it was scored]"
    )


def score_option() -> Callable[[Command], Command]:
    """Make the option --score of commands that read a run, which may have several."""
    return click.option(
        "--score",
        metavar="COLUMN",
        help="Which of the scores, in a run of several bundles: score_NAME.  [default: the only one]",
    )


def image_limits(larger_become: str) -> Callable[[Command], Command]:
    """Make the options --small-images and --max-pixels.

    Args:
        larger_become: what larger images are called, in the help.
    """
    from ..stages.decode import DEFAULT_MAX_PIXELS

    small = default_option(
        "--small-images",
        "upscale",
        "What to do with images smaller than a patch.",
        type=click.Choice(["upscale", "error"]),
    )
    large = default_option("--max-pixels", DEFAULT_MAX_PIXELS, f"Larger images are {larger_become}.")
    return lambda command: small(large(command))


def number_option(flag: str, word: str, *, help: str) -> Callable[[Command], Command]:
    """Make an option that takes a whole number, or `word`, which is its default and becomes None."""

    def convert(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
        if value == word:
            return None
        try:
            return int(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is neither a number nor {word}") from None

    return default_option(flag, word, help, callback=convert)
