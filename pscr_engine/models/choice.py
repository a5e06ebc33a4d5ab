"""The choice of a bundle: what the user names, `model.pscr` in the current folder, or the shipped model."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ..bundle import Bundle
from ..errors import BundleError, UsageError, option, wrong_usage
from ..stores.uri import Place, StorePath, place
from .shipped import DEFAULT_MODEL, find_model, shipped_models, suggest

log = logging.getLogger("pscr_engine")

DEFAULT_BUNDLE = "model.pscr"
"""What `pscr-engine export` makes, and what commands look for first."""


@dataclass(frozen=True, slots=True)
class BundleChoice:
    """A bundle that has been decided on: whoever opens it, in whichever process and on whichever host, opens this one.

    A shipped model is known by its name: each host has it in a folder of its own.

    Args:
        place: where the bundle is; None for a shipped model.
        model: name of the shipped model; None for any other bundle.
        default: whether the user named none.
        reason: why it is this one; None where the user named it by its path.
    """

    place: Place | None
    model: str | None = None
    default: bool = False
    reason: str | None = None

    def __str__(self) -> str:
        return str(self.place) if self.model is None else self.model

    def open(self) -> Bundle:
        """Read and verify the bundle.

        Raises:
            BundleError: it is not there, damaged, or of another format version.
            StoreError: it can't be fetched from its object store.
        """
        if self.model is not None:
            return find_model(self.model).open()
        assert self.place is not None
        return Bundle.open(self.place)

    def describe(self) -> str:
        """Say which bundle it is, and why this one."""
        return str(self) if self.reason is None else f"{self} ({self.reason})"

    def log(self) -> None:
        """Log which bundle it is, unless the user named it by its path."""
        if self.reason is not None:
            log.info("bundle %s", self.describe())

    @classmethod
    def of_model(cls, name: str, reason: str = "shipped with pscr-engine", *, default: bool = False) -> BundleChoice:
        """Choose a shipped model.

        Raises:
            BundleError: none of that name is shipped.
        """
        return cls(None, find_model(name).name, default, reason)


def choose_bundle(given: str | Place | BundleChoice | None, what: str | None = None) -> BundleChoice:
    """Decide which bundle is meant. It is not opened, and may turn out to be damaged: then no other is taken instead.

    Args:
        given: text: a path, the URI of a bundle in an object store, or the name of a shipped model; a path that is
            there wins over a name. A Path is a path. None: `model.pscr` if it is in the current folder, else the
            shipped model. A BundleChoice is returned as it is.
        what: the option or argument, for messages; None for that of bundles.

    Raises:
        BundleError: there is no such bundle.
        UsageError: a URI that can't be one of a bundle.
    """
    if isinstance(given, BundleChoice):
        return given
    if given is None:
        return _default()
    if not isinstance(given, str | Path | StorePath):
        raise UsageError(f"{what or option('--bundle')} {given}: one bundle is wanted here; give its path or name")
    location = place(given, what or option("--bundle"))
    if not isinstance(given, str) or not isinstance(location, Path):
        return BundleChoice(location)
    models, there = shipped_models(), os.path.lexists(location)
    if given in models:
        if not there:
            return BundleChoice.of_model(given)
        return BundleChoice(location, reason="the one at this path, not the shipped model of that name")
    if not there and models and len(location.parts) == 1:
        raise wrong_usage(
            BundleError(
                f"{given}: no such bundle, and no shipped model of that name ({suggest(given, models)}); {_make_one()}"
            )
        )
    return BundleChoice(location)


def _make_one() -> str:
    return f"make a bundle with pscr-engine export, or name one with {option('--bundle')}"


def _default() -> BundleChoice:
    if os.path.lexists(DEFAULT_BUNDLE):
        return BundleChoice(Path(DEFAULT_BUNDLE), default=True, reason="in this folder")
    if DEFAULT_MODEL not in shipped_models():
        raise wrong_usage(
            BundleError(f"no {DEFAULT_BUNDLE} here, and no model is shipped with this pscr-engine; {_make_one()}")
        )
    return BundleChoice.of_model(DEFAULT_MODEL, f"the shipped model: no {DEFAULT_BUNDLE} here", default=True)
