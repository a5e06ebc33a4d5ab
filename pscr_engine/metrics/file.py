"""The metrics file: OpenMetrics text that is whole whenever it is read, and stays when the run has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition

from ..atomic import atomic_file, check_output_file
from ..errors import OutputError, one_line, option
from ..output.run_file import has_run_file
from .meter import Meter

log = logging.getLogger("pscr_engine")

SECONDS, LAST_SECONDS = 5.0, 10.0
_OURS = b"# HELP pscr_engine_"
_as_text: Any = exposition.generate_latest  # which has no types


@contextmanager
def written(meter: Meter, file: Path, out: object) -> Iterator[None]:
    """Write what a meter says to a file: now, every few seconds, and when the body has ended, however it did.

    Raises:
        OutputError: the file can't be there, or can't be written now. Later, that is one warning.
    """
    file = _checked(file, out)
    writer = _Writer(meter, file)
    try:
        writer.write()
    except OSError as error:
        raise OutputError(
            f"{file}: can't write there ({error.strerror or error}); choose another {option('--metrics-file')}"
        ) from error
    writer.start()
    try:
        yield
    finally:
        writer.stop()


class _Writer(threading.Thread):
    """Writes the file every few seconds until it is stopped, and once more then.

    In a thread of its own to the end: a file system that has gone may let nobody return who writes to it.
    """

    def __init__(self, meter: Meter, file: Path) -> None:
        super().__init__(name="metrics", daemon=True)
        self._file, self._registry = file, CollectorRegistry()
        self._registry.register(meter)
        self._stopping, self._warned = threading.Event(), False

    def write(self) -> None:
        text = _as_text(self._registry)
        with atomic_file(self._file) as temporary:
            temporary.write_bytes(text)

    def run(self) -> None:
        while not self._stopping.wait(SECONDS):
            self._write_or_warn()
        self._write_or_warn()

    def stop(self) -> None:
        self._stopping.set()
        self.join(LAST_SECONDS)
        if self.is_alive():
            self._warn("it takes too long")

    def _write_or_warn(self) -> None:
        try:
            self.write()
        except OSError as error:  # the run is worth more than what is told of it
            self._warn(one_line(error, 200))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s: metrics can't be written (%s); that is no trouble of the run", self._file, reason)


def _checked(file: Path, out: object) -> Path:
    """Return where to write, of a symbolic link its target; raise OutputError if a file can't be there.

    An output folder holds its run alone: with any other file, a run that has not begun is refused.
    """
    kind = "metrics"
    check_output_file(file, kind)
    try:
        target = file.resolve()
        if target.is_symlink():  # a loop of links, from Python 3.13 on
            raise OSError("a loop of links")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before
        raise OutputError(f"{file}: can't be followed; name another file") from error
    file = target
    names: list[str] = []
    with suppress(OSError):
        names = [each.name for each in file.parent.iterdir()] if file.parent.is_dir() else []
    if has_run_file(names) or (isinstance(out, Path) and file.is_relative_to(out.resolve())):
        raise OutputError(f"{file}: is in the output folder of a run, which holds nothing else; name a file elsewhere")
    check_output_file(file, f"{kind} file", _is_earlier)
    return file


def _is_earlier(file: Path) -> bool:
    """Tell whether a file holds metrics, or nothing at all."""
    if not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(len(_OURS)) in (_OURS, b"")
    except OSError as error:
        raise OutputError(
            f"{file}: is there already, and can't be read ({error.strerror}); name another file"
        ) from error
