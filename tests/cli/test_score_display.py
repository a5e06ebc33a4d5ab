"""The two lines at the bottom of a terminal: on a made-up terminal that breaks lines anew when its width changes."""

import io
import re
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from pscr_engine.cli.score_display import Display, Rewrapped

TEXTS = ["7,816 of 16,000 images, 1,563.5/s, 5 s left", "7,816, 5 s left", "5 s left"]
DETAILS = "12 undecodable; time: fetch 10% decode 66% sample 21% infer 3%"


class Terminal:
    """A terminal's rows, each with whether the next one goes on with its line; the cursor is at the end of a row."""

    def __init__(self, width):
        self.width, self.at = width, 0
        self.rows: list[list[Any]] = [["", False]]

    def write(self, text):
        for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self.at += 1
                self.rows[self.at :] = self.rows[self.at :] or [["", False]]
            elif token.endswith("A"):
                self.at = max(0, self.at - int(token[2:-1] or 1))
            elif token.endswith("J"):
                self.rows[self.at :] = [["", False]]
            elif token.endswith("K"):
                self.rows[self.at] = ["", False]
            elif not token.startswith("\x1b"):
                self._print(token)

    def _print(self, text):
        # What is drawn here begins on an empty row, or goes on where the row ends.
        row = self.rows[self.at]
        room = self.width - len(row[0])
        row[0] += text[:room]
        if text[room:]:
            row[1] = True
            self.at += 1
            self.rows[self.at :] = [["", False]]
            self._print(text[room:])

    def resize(self, width):
        lines = [""]
        for text, goes_on in self.rows:
            lines[-1] += text
            if not goes_on:
                lines.append("")
        self.rows = [
            [line[at : at + width], at + width < len(line)]
            for line in lines[:-1]
            for at in range(0, max(1, len(line)), width)
        ]
        self.width, self.at = width, len(self.rows) - 1

    def lines(self):
        return [text.rstrip() for text, _ in self.rows]


@pytest.mark.parametrize("widths", [[100], [40], [24], [12], [100, 40, 100, 24, 23, 100], [80, 41, 79]])
def test_there_are_two_lines_and_nothing_else_at_any_width(widths):
    terminal = Terminal(widths[0])
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=widths[0], height=24, color_system=None)
    display = Display()
    display.show(7816, 16_000, TEXTS, DETAILS)

    def draw(live):
        live.refresh()
        terminal.write(file.getvalue())
        file.seek(0)
        file.truncate()

    terminal.write("a line before\n")
    with Live(display, console=console, auto_refresh=False, transient=True) as live:
        console.push_render_hook(Rewrapped(console, display))
        draw(live)
        for width in widths:
            if width != terminal.width:
                terminal.resize(width)
                console.width = width
            draw(live)
            draw(live)
            while terminal.lines()[0] != "a line before":  # broken up in a narrow terminal
                terminal.rows[:2] = [[terminal.rows[0][0] + terminal.rows[1][0], False]]
                terminal.at -= 1
            assert len(terminal.rows) == 3
            bar, details = terminal.lines()[1:]
            assert len(bar) <= width
            assert "━" in bar
            assert " 49%" in bar or width < 15
            text = next((text for text in TEXTS if len(text) + 16 <= width), "")
            assert bar.endswith(text)
            assert details == (DETAILS if width >= len(DETAILS) else DETAILS[: width - 1] + "…")
        console.pop_render_hook()


def test_an_unknown_total_has_no_share():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, color_system=None)
    display = Display()
    console.print(display)
    display.show(5, None, ["5 images, 1.0/s", "5", "5"], "")
    console.print(display)
    assert "5 images, 1.0/s" in file.getvalue()
    assert "%" not in file.getvalue()
