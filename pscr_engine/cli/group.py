"""The `pscr-engine` group: knows the commands' names and help lines, imports a command when it is called."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import click

from .._version import __version__
from ..errors import command_line


class _Entry(NamedTuple):
    target: str
    help: str


# In the order of use. Commands of the other two packages are named, not imported, so that scoring
# never loads them.
COMMANDS = {
    "train": _Entry("pscr_training.cli_train:train", "Train a PSCR model on labelled images."),
    "evaluate": _Entry(
        "pscr_training.cli_evaluate:evaluate", "Compare a model's scores with labels: SRCC, KRCC, PLCC, RMSE."
    ),
    "export": _Entry("pscr_export.cli:export", "Turn a PSCR checkpoint into a bundle that scores images."),
    "score": _Entry("pscr_engine.cli.score:score", "Score the images of a manifest."),
    "explain": _Entry(
        "pscr_engine.cli.explain:explain",
        "Show where an image's score comes from: its patches, and the exemplars nearest to it.",
    ),
    "report": _Entry(
        "pscr_engine.cli.report:report", "Make a page of a run: scores, best and worst images, failures, speed."
    ),
    "select": _Entry(
        "pscr_engine.cli.select:select", "Keep the best images of a run: a table with the manifest's columns."
    ),
    "compile": _Entry(
        "pscr_engine.cli.compile:compile_command", "Build TensorRT plans, and check them on the GPUs of this host."
    ),
    "models": _Entry("pscr_engine.cli.models:models", "List the shipped models: figures, data, licences."),
    "calibrate": _Entry(
        "pscr_engine.cli.calibrate:calibrate",
        "Measure how much some of an image's patches tell, for score --keep-above and --patches.",
    ),
    "inspect": _Entry("pscr_engine.cli.inspect:inspect", "Say what is in a bundle, and verify it."),
    "bench": _Entry("pscr_engine.cli.bench:bench", "Measure a bundle's speed on this host, stage by stage."),
    "doctor": _Entry("pscr_engine.cli.doctor:doctor", "Say what this host can run, and what to install for the rest."),
    "demo": _Entry("pscr_engine.cli.demo:demo", "Score made-up images with the shipped model, and make a report."),
}


# What people try that is no command, and what to write instead.
_INSTEAD = {
    "help": "pscr-engine --help, or pscr-engine COMMAND --help",
    "version": "pscr-engine --version",
}


def load(target: str) -> Any:
    """Import what `target` names, as "package.module:name"."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, and listed without an import.

    Attributes:
        when_loaded: called when a command has been imported, before it begins.
    """

    when_loaded: Callable[[], None] | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = load(entry.target)
        assert isinstance(command, click.Command)
        if self.when_loaded is not None:
            self.when_loaded()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named first, or say which one may be meant."""
        name = args[0]
        if name in COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        if name in _INSTEAD:
            ctx.fail(f"No such command {name!r}. Write {_INSTEAD[name]}.")
        near = get_close_matches(name.lower(), [*COMMANDS, *_INSTEAD], n=2, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        ctx.fail(f"No such command {name!r}.{hint}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command: its messages speak of options."""
        with command_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands under `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Each command explains itself: pscr-engine COMMAND --help",
)
@click.version_option(__version__, prog_name="pscr-engine")
def cli() -> None:
    """Score the quality of AI-generated images with PSCR, by the million.

    \b
    With the shipped model:  pscr-engine score --manifest images.parquet
    With one of your own:    pscr-engine train --dataset labels.csv
                             pscr-engine export --ckpt trained/best.pt
                             pscr-engine score --manifest images.parquet --bundle model.pscr
    """
