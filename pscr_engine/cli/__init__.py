"""The command line: one file per command, each imported when it is called."""

from __future__ import annotations

import sys

from .group import cli

__all__ = ["cli", "main"]


def main() -> None:
    """Entry point of `pscr-engine`."""
    from .run import run

    sys.exit(run(cli))
