"""How the progress of all commands but `score` is shown on stderr: a bar on a terminal, else now and then a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from ..progress import Progress
from . import logs

_LINE_SECONDS = 5.0


@contextmanager
def progress(unit: str) -> Iterator[Progress]:
    """Show progress while the body runs.

    Args:
        unit: what is counted, "images" for example.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        with _bar(unit) as report:
            yield report
    else:
        yield _lines(unit)


@contextmanager
def _bar(unit: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "  {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, tuple[int, float]] = {}

        def report(step: str, done: int, total: int | None) -> None:
            if step not in tasks:
                tasks[step] = (int(bar.add_task(step, total=total, rate="")), monotonic())
            task, start = tasks[step]
            seconds = monotonic() - start
            bar.update(
                bar.task_ids[task],
                completed=done,
                total=total,
                rate=f"{done / seconds:.1f}/s" if seconds else "",
            )

        yield report


def _lines(unit: str) -> Progress:
    begun: dict[str, float] = {}
    last = monotonic()

    def report(step: str, done: int, total: int | None) -> None:
        nonlocal last
        now = monotonic()
        start = begun.setdefault(step, now)
        if now - last >= _LINE_SECONDS and now > start:
            last = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total is not None and rate > 0 else ""
            of = f" of {total}" if total is not None else ""
            logs.say(f"{step}: {done}{of} {unit}, {rate:.1f}/s{left}")

    return report
