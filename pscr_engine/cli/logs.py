"""What goes to stderr: lines of text, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_LOGGERS = ("pscr_engine", "pscr_export", "pscr_training")
_json = False


def configure(*, as_json: bool) -> None:
    """Send the log to stderr, as text or as JSON."""
    global _json
    _json = as_json
    handler = _JsonHandler() if as_json else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    # The pipeline's library would print every error that we report ourselves.
    logging.getLogger("spdl").addHandler(logging.NullHandler())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def error(text: str, *, prefix: str = "error: ") -> None:
    """Say what ended the command. In JSON, without the prefix."""
    if _json:
        event("error", message=text)
    else:
        print(prefix + text, file=sys.stderr, flush=True)


def event(name: str, **facts: Any) -> None:
    """Write one JSON object: the time, the event's name, its facts."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(json.dumps({"time": now, "event": name, **facts}), file=sys.stderr, flush=True)


class _JsonHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        event("log", level=record.levelname.lower(), message=record.getMessage())
