"""What a section brings back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class SkippedError(Exception):
    """A section, or a part of one, that can't be run on this host, with the reason."""


@dataclass(slots=True)
class Result:
    """Checks that hold or don't, figures, and what was left out.

    Args:
        checks: name → (whether it holds, what was seen).
        figures: by name.
        skipped: what → why.
    """

    checks: dict[str, tuple[bool, str]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def check(self, name: str, holds: bool, seen: str) -> None:
        self.checks[name] = (bool(holds), seen)

    def target(self, name: str, value: float, least: float) -> None:
        """A check that a figure reaches a target."""
        self.check(name, value >= least, f"{value:,.4g} of {least:,.4g}")
