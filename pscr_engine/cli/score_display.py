"""The two lines that `score` keeps up to date at the bottom of a terminal, whatever its width, and when it changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

_LEAST_BAR = 10


class Display:
    """A bar with a text beside it, the longest that leaves room for the bar, and a line of details below.

    Attributes:
        drawn: how many columns each of the lines took when they were last drawn.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._total: int | None = None
        self._texts: Sequence[str] = [""]
        self._details = ""
        self.drawn: tuple[int, ...] = ()

    def show(self, rows: int, total: int | None, texts: Sequence[str], details: str) -> None:
        """Take what is to be shown from now on.

        Args:
            rows: how many are done.
            total: of how many; None if it is not known.
            texts: what to say beside the bar, from long to short.
            details: the line below.
        """
        share = f"{rows / total:4.0%} " if total else ""
        self._rows, self._total, self._details = rows, total, details
        self._texts = [*(share + text for text in texts), share.strip()]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        text = next((text for text in self._texts if _LEAST_BAR + 1 + len(text) <= width), "")
        bar = Table.grid(expand=True, padding=(0, 1, 0, 0))
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(ProgressBar(self._total, self._rows), text)
        details = Text(self._details, style="dim", no_wrap=True, overflow="ellipsis")
        self.drawn = (width, min(width, details.cell_len))
        yield bar
        yield details


class Rewrapped(RenderHook):
    """Takes away what a terminal made of the lines when it became narrower: it has broken them into more lines.

    Terminals do so almost without exception. Where they cut lines off instead, a line or two above goes, too.
    """

    def __init__(self, console: Console, display: Display) -> None:
        self._console, self._display = console, display

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Move the cursor up to where the lines begin now, and erase from there; the rest is done as always."""
        width = max(1, self._console.width)
        more = sum(max(1, math.ceil(columns / width)) - 1 for columns in self._display.drawn)
        if not more:
            return renderables
        up = Control()
        up.segment = Segment(f"\r\x1b[{more}A\x1b[J", None, [(ControlType.CARRIAGE_RETURN,)])
        return [up, *renderables]
