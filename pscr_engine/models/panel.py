"""The bundles of one run: one, or a panel of several, each with a name that columns can have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError, option
from ..stores.uri import Place, place
from .choice import BundleChoice, choose_bundle
from .shipped import shipped_models

GivenBundle = str | Place | BundleChoice
"""A bundle as users name it, or one that has been decided on."""

_NAME = re.compile(r"[A-Za-z0-9_]+")
_NAMED = re.compile(r"([^/=:]+)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Panel:
    """Bundles that score the same images in one pass, each with a name.

    Args:
        members: name and bundle, ordered by names: columns come in this order, whatever the order that users give.
    """

    members: tuple[tuple[str, GivenBundle], ...]

    @classmethod
    def of(cls, given: Mapping[str, GivenBundle] | Iterable[GivenBundle]) -> Panel:
        """Name bundles: by a mapping's keys, by `NAME=PATH`, or else by their files' names.

        Raises:
            UsageError: a name can't be part of a column's name, or two are equal.
        """
        named = list(given.items()) if isinstance(given, Mapping) else [_named(each) for each in given]
        seen: dict[str, GivenBundle] = {}
        for name, bundle in named:
            if isinstance(bundle, str):
                place(bundle, option("--bundle"))  # refuses what can't be one
            _check_name(name, bundle)
            same = next((other for other in seen if other.lower() == name.lower()), None)
            if same is not None:
                what = f"are both called {name}" if same == name else f"are called {same} and {name}"
                raise UsageError(
                    f"{seen[same]} and {bundle} {what}, and columns are told apart by these names: {_advice(bundle)}"
                )
            seen[name] = bundle
        return cls(tuple(sorted(seen.items())))

    def choose(self) -> dict[str, BundleChoice]:
        """Decide which bundles are meant, name → choice; none is opened.

        Raises:
            BundleError, UsageError: as in `choose_bundle`.
        """
        return {name: choose_bundle(bundle) for name, bundle in self.members}


def one_or_panel(
    given: GivenBundle | Panel | Mapping[str, GivenBundle] | Iterable[GivenBundle] | None,
) -> GivenBundle | Panel | None:
    """Tell a single bundle, which stays as it is, from several, which get names.

    Raises:
        UsageError: as in `Panel.of`, or there are none where there should be some.
    """
    if given is None or isinstance(given, str | Path | BundleChoice | Panel) or not isinstance(given, Iterable):
        return given
    if isinstance(given, Mapping):
        if not given:
            raise UsageError(f"{option('--bundle')} names no bundle: name one, or leave it out")
        return Panel.of(given)
    listed = list(given)
    if not listed:
        raise UsageError(f"{option('--bundle')} names no bundle: name one, or leave it out")
    if len(listed) > 1:
        return Panel.of(listed)
    only = listed[0]
    return Panel.of(listed) if isinstance(only, str) and _has_name(only) and not os.path.lexists(only) else only


def choose_bundles(
    given: GivenBundle | Panel | Mapping[str, GivenBundle] | Iterable[GivenBundle] | None,
) -> dict[str, BundleChoice]:
    """Decide which bundles are meant, name → choice; the name is "" for a single one without a name.

    Raises:
        BundleError, UsageError: as in `choose_bundle` and `Panel.of`.
    """
    decided = one_or_panel(given)
    return decided.choose() if isinstance(decided, Panel) else {"": choose_bundle(decided)}


def _has_name(text: str) -> bool:
    found = _NAMED.fullmatch(text)
    return found is not None and _NAME.fullmatch(found[1]) is not None


def _named(given: GivenBundle) -> tuple[str, GivenBundle]:
    """Return name and bundle: of `NAME=PATH`, or by the file's name."""
    if isinstance(given, str) and (found := _NAMED.fullmatch(given)):
        name, rest = found.groups()
        if os.path.lexists(given):
            raise UsageError(
                f"{option('--bundle')} {given}: there is a bundle at this path, and it may as well mean {rest} under "
                f"the name {name}: write ./{given} for the former"
            )
        return name, rest
    return re.sub(r"[^A-Za-z0-9_]", "_", _stem(given)), given


def _stem(bundle: GivenBundle) -> str:
    if isinstance(bundle, BundleChoice):
        return bundle.model or _stem(bundle.place or "")
    if isinstance(bundle, str):
        if bundle in shipped_models():
            return bundle
        bundle = place(bundle, option("--bundle"))
    name = bundle.resolve().name if isinstance(bundle, Path) and bundle.name in ("", "..") else bundle.name
    return name.removesuffix(".pscr")


def _check_name(name: str, bundle: GivenBundle) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{option('--bundle')} {bundle}: its name, {name!r}, can't be part of a column's name: use letters, digits "
            "and _"
        )
    if name.lower() == "std" or name.lower().startswith("std_"):
        raise UsageError(f"{option('--bundle')} {bundle}: score_{name} would read as a score_std: {_advice(bundle)}")


def _advice(bundle: GivenBundle) -> str:
    return f"give {option('--bundle', f'NAME={bundle}')} with another name"
