"""Run a command: errors become one line on stderr and an exit code."""

from __future__ import annotations

import signal
import sys

import click

from ..errors import PscrError, install_advice
from . import logs

INTERRUPTED = 130


def run(command: click.Command) -> int:
    """Call `command` with the process's arguments.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage, 3 more failures than allowed, 130 interrupted.
        An exception that is no `PscrError` is a defect, and passes through with its traceback.
    """
    as_json = "--log-format json" in " ".join(sys.argv).replace("=", " ")
    logs.configure(as_json=as_json)
    if as_json:
        logs.all_as_json()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        outcome = command.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        hint = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        logs.error(f"{error.format_message()}{hint}")
        return error.exit_code
    except PscrError as error:
        logs.error(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        logs.error("interrupted", prefix="")
        outcome = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has had enough: `| head`
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRAS:
            raise
        package = str(error.name).partition(".")[0]
        extras = _EXTRAS_OF_TRAINING if sys.argv[1:2] in (["train"], ["evaluate"]) else _EXTRAS[package]
        logs.error(f"this command needs {package}: {install_advice(extras)}")
        return 1
    if outcome == INTERRUPTED:
        # If Ctrl-C struck within an exec() (dataclasses and PyTorch use it), CPython remembers that as
        # an interrupt nobody handled, and ends by SIGINT whatever the exit code; the next exec() forgets.
        exec("")
    return outcome if isinstance(outcome, int) else 0


def _terminate(number: int, frame: object) -> None:
    """Handle SIGTERM as Ctrl-C: threads are stopped and half-written files removed."""
    raise KeyboardInterrupt


# All that the commands need that import a package, not only the extra that brings it: pip installs what is named.
_EXTRAS_OF_TRAINING = "cpu,export,train"
_EXTRAS = {
    "torch": "cpu,export",
    "torchvision": "cpu,export",
    "timm": "cpu,export",
    "onnx": "cpu,export",
    "onnxscript": "cpu,export",
    "scipy": _EXTRAS_OF_TRAINING,
    "openpyxl": _EXTRAS_OF_TRAINING,
    "matplotlib": _EXTRAS_OF_TRAINING,
}
