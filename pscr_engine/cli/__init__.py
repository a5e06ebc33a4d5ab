"""The command line: one file per command, each imported when it is called."""

from __future__ import annotations

from .group import cli

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line `pscr-engine`."""
    from ..host import keep_pandas_out
    from .leave import leave
    from .run_command import run

    cli.when_loaded = keep_pandas_out
    leave(run(cli))
