"""Every error that pscr-engine raises on purpose.

::

    PscrError                  exit code 1: the work failed; the message says why and what to do
    ├── UsageError             exit code 2: an argument or a combination of arguments is wrong; nothing was done
    │   ├── ManifestError      the manifest can't be read as asked
    │   └── OutputError        the output folder holds something else, or can't be written
    │       └── InUseError     exit code 1: another process is at work there; the same command may succeed later
    ├── BundleError            a bundle is missing, damaged, or of another format version
    ├── BackendError           an inference backend can't run on this host
    │   └── DeviceLostError    a GPU has dropped out in the middle of the work
    ├── MissingDependencyError an optional package is not installed
    ├── CheckpointError        a file is not a usable PSCR checkpoint
    ├── DatasetError           a labelled database is missing or malformed
    ├── ExemplarError          the exemplar list, or an image in it, can't be used
    ├── StoreError             an object store can't be reached, or refuses what is asked of it
    ├── ImageError             the one image that was asked about can't be scored
    ├── BusyError              a scorer has more images waiting than it may have
    ├── WorkerError            worker processes died, again and again, on the same rows
    ├── ParityError            an exported graph's scores differ too much from PyTorch's
    └── TooManyFailuresError   exit code 3: more images failed than max_failure_rate allows, or all

A bundle, checkpoint or database that the caller names and that is not there is wrong usage, too: exit code 2.

A bad *image* among others is none of these: it becomes a row with a status (see `pscr_engine.records.Status`).
Messages are one line: what is wrong, then what to do. Settings in them are named by `option`, in the caller's language:
as an option of the command line in a command, else as a parameter. What goes into an output folder is no message: it is
the same whoever wrote it, and names parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

# Options whose parameter is called otherwise.
_PARAMETERS = {
    "--ckpt": "checkpoint",
    "--compute-capability": "targets",
    "--data": "root",
    "--per-group": "group_column",
    "--plot": "file",
    "--ray-address": "address",
}
# Of the process: errors arise in any of its threads, all for one caller.
_on_command_line = False


def option(flag: str, value: Any = None, *, parameter: str | None = None) -> str:
    """Name a setting as the caller knows it: "--batch-size" in a command, else "batch_size".

    Args:
        flag: the option of the command line.
        value: what to give it, if it is to be said: `--runner ray`, `runner="ray"`; True for a flag.
        parameter: its name in Python, if that isn't the flag's.
    """
    if _on_command_line:
        return flag if value is None or value is True else f"{flag} {value}"
    name = parameter or _PARAMETERS.get(flag) or flag.removeprefix("--").replace("-", "_")
    if value is None:
        return name
    return f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"


def is_on_command_line() -> bool:
    """Tell whether this process speaks to somebody at the command line, for processes that work for it."""
    return _on_command_line


def speak(*, on_command_line: bool) -> None:
    """Choose the language of this process's messages: options of the command line, or parameters."""
    global _on_command_line
    _on_command_line = on_command_line


@contextmanager
def command_line() -> Iterator[None]:
    """Make messages name options while the body runs."""
    before = _on_command_line
    speak(on_command_line=True)
    try:
        yield
    finally:
        speak(on_command_line=before)


class PscrError(Exception):
    """Base of all errors; `exit_code` is what the command line exits with."""

    exit_code = 1


def one_line(error: BaseException | str, limit: int) -> str:
    """Return an error's text on one line, at most `limit` characters: other libraries' texts have many lines."""
    return " ".join(str(error).split())[:limit]


_Error = TypeVar("_Error", bound=PscrError)


def wrong_usage(error: _Error) -> _Error:
    """Return the error, made to end a command with exit code 2: what the caller named is not there."""
    error.exit_code = UsageError.exit_code
    return error


class UsageError(PscrError):
    """An argument, or a combination of arguments, is wrong."""

    exit_code = 2


class ManifestError(UsageError):
    """The manifest is missing, unreadable, or lacks a column."""


class OutputError(UsageError):
    """The output folder belongs to another run, holds foreign files, or can't be written."""


class InUseError(OutputError):
    """Another process is at work in the output folder, or has taken this one's claim over.

    It is no wrong usage for whoever starts processes anew: the same command may succeed later.
    """

    exit_code = 1


class BundleError(PscrError):
    """A bundle is missing, damaged, or written by another format version."""


class BackendError(PscrError):
    """An inference backend, device or precision is not available on this host."""


class DeviceLostError(BackendError):
    """A GPU has dropped out: an Xid, uncorrectable memory, off the bus. Its process can't use it any more."""


def install_advice(extras: str) -> str:
    """Return the command that installs extras: "cpu,export" for example."""
    # PyTorch, ONNX and what exports with them fit together in few versions: those that the README installs.
    versions = "-c constraints.txt " if "export" in extras.split(",") else ""
    return f"pip install {versions}'pscr-engine[{extras}]'"


class MissingDependencyError(PscrError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {package}: {install_advice(extra)}")
        self._arguments = (package, purpose, extra)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), self._arguments


class CheckpointError(PscrError):
    """A file is not a PSCR checkpoint that can be exported."""


class DatasetError(PscrError):
    """A labelled database is missing, malformed, or can't be split as asked."""


class ExemplarError(PscrError):
    """The exemplar list has missing files, unreadable images or labels that are not finite numbers."""


class ImageError(PscrError):
    """An image that was asked about by itself can't be scored."""


class BusyError(PscrError):
    """A scorer has as many images waiting as it may have: later there is room again."""


class ParityError(PscrError):
    """An exported graph's scores differ from the PyTorch model's by more than its tolerance."""


class StoreError(PscrError):
    """An object store can't be reached, or refuses what is asked of it.

    Args:
        message: what is wrong and what to do.
        kind: one of `pscr_engine.stores.trouble.Kind`.
    """

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class WorkerError(PscrError):
    """Worker processes can't be kept alive."""


class TooManyFailuresError(PscrError):
    """More images failed than `max_failure_rate` allows, or all of them did."""

    exit_code = 3
