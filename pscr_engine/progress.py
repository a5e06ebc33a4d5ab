"""How long work says how far it is: one kind of callback, for every command."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done, how much of it is done, and how much there is (None: unknown)."""

    def __call__(self, step: str, done: int, total: int | None) -> None: ...  # noqa: D102


def silent(step: str, done: int, total: int | None) -> None:
    """Say nothing: the `Progress` of those who don't ask for one."""
