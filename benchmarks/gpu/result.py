"""The result of one section of the acceptance run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


class SkippedError(Exception):
    """A section, or a part of one, that can't be run on this host, with the reason."""


@dataclass(slots=True)
class Result:
    """Checks that hold or don't, figures, and what was left out.

    Args:
        checks: name → (whether it holds, what was seen).
        figures: by name.
        skipped: what was left out → why.
        finished: whether the section came to its end.
    """

    checks: dict[str, tuple[bool, str]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    finished: bool = False

    def check(self, name: str, holds: bool, seen: str) -> None:
        self.checks[name] = (bool(holds), seen)

    def target(self, name: str, value: float, least: float) -> None:
        """Add a check that a figure reaches a target."""
        self.check(name, value >= least, f"{value:,.4g} of {least:,.4g}")

    @contextmanager
    def kept_in(self, file: Path) -> Iterator[None]:
        """Write the result to a file each second and at the end: a section that is killed still leaves one."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(1.0):
                self._write(file)

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
            self.finished = True
        finally:
            over.set()
            thread.join()
            self._write(file)

    def _write(self, file: Path) -> None:
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(file)
