"""The meter of a run: what the run tells of itself, and says at the end how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import time
from typing import TYPE_CHECKING

from .._version import __version__
from .figures import Figures

if TYPE_CHECKING:
    from prometheus_client import Metric as Family


class Meter:
    """What a run tells of itself. Asked by other threads at any time; costs nothing in between.

    A collector of prometheus-client.
    """

    def __init__(self) -> None:
        self._source: Callable[[], Figures] = Figures
        self._info: Mapping[str, str] = {"version": __version__}
        self._ended = ""
        self._started = time()

    def identify(self, **info: str) -> None:
        """Say what is run: labels of `pscr_engine_run_info`."""
        self._info = {**self._info, **info}

    def watch(self, source: Callable[[], Figures]) -> None:
        """Take figures from `source` from now on; it is called from other threads."""
        self._source = source

    def end(self, state: str) -> None:
        """Say how the run has ended; the first word counts."""
        self._ended = self._ended or state

    def collect(self) -> Iterator[Family]:
        """Yield all metrics as they are now."""
        from .families import Moment, families

        figures = self._source()
        state = self._ended or ("running" if figures.backend else "starting")
        info = {**self._info, "backend": figures.backend}
        return families(Moment(figures, info, state, self._started, time()))
