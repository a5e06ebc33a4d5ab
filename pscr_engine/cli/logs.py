"""What commands print: messages and the log on stderr, as text or as JSON lines; the result on stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from ..errors import PscrError

_LOGGERS = ("pscr_engine", "pscr_export", "pscr_training")
_json = False


def configure(*, as_json: bool) -> None:
    """Send the log to stderr, as text or as JSON."""
    global _json
    _json = as_json
    handler = _Handler()
    # The pipeline's library would print every error that we report ourselves.
    logging.getLogger("spdl").addHandler(logging.NullHandler())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def all_as_json() -> None:
    """Make JSON of this process's warnings and tracebacks, too: a reader of JSON gets nothing else."""
    warnings.showwarning = _show_warning
    sys.excepthook = _show_defect
    threading.excepthook = lambda hooked: _show_defect(hooked.exc_type, hooked.exc_value, hooked.exc_traceback)


def error(text: str, *, prefix: str = "error: ") -> None:
    """Say what ended the command. In JSON, without the prefix."""
    if _json:
        event("error", message=text)
    else:
        say(prefix + text)


def say(text: str) -> None:
    """Write a line to stderr. If nobody reads it any more, that is no reason to stop."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def result(text: str) -> None:
    """Write what a command was asked for to stdout. A reader that has gone (`| head`) has had enough.

    Raises:
        PscrError: stdout can't be written.
    """
    if sys.stdout is None:
        return
    try:
        print(text, flush=True)
    except OSError as problem:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - what is left in the buffer goes there
        if not isinstance(problem, BrokenPipeError):
            raise PscrError(f"can't write to stdout ({problem.strerror}), but the work is done:\n{text}") from problem


def event(name: str, **facts: Any) -> None:
    """Write one JSON object: the time, the event's name, its facts."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    say(json.dumps({"time": now, "event": name, **facts}))


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    event("log", level="warning", message=f"{category.__name__}: {message}")


def _show_defect(kind: type[BaseException], error: BaseException | None, place: TracebackType | None) -> None:
    lines = traceback.format_exception(kind, error, place)
    event("error", message=lines[-1].strip(), traceback="".join(lines))


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if _json:
            event("log", level=record.levelname.lower(), message=record.getMessage())
        else:
            say(record.getMessage())
