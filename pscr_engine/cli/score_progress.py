"""How a run's snapshots are shown on stderr: a live bar on a terminal, otherwise lines or JSON every few seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from ..runners.progress import Report, Snapshot
from . import logs

_LINE_SECONDS = 5.0
_BAR_SECONDS = 0.1


@contextmanager
def run_progress(*, as_json: bool) -> Iterator[Report]:
    """Show the snapshots that are given to what this yields."""
    if as_json:
        yield _every(_LINE_SECONDS, _json_event, last=True)
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _every(_LINE_SECONDS, lambda snapshot: logs.say(describe(snapshot)))


def describe(snapshot: Snapshot) -> str:
    """Say in one line how much is done, how fast, how long it will take, what failed, and where the time goes."""
    facts = (_counts(snapshot), _failures(snapshot), _shares(snapshot))
    return "; ".join(fact for fact in facts if fact)


def duration(seconds: float) -> str:
    """Format a time as seconds, minutes and seconds, or hours and minutes."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _counts(snapshot: Snapshot) -> str:
    of = f" of {snapshot.total:,}" if snapshot.total is not None else ""
    left = f", {duration(snapshot.seconds_left)} left" if snapshot.seconds_left is not None else ""
    return f"{snapshot.rows:,}{of} images, {snapshot.images_per_second:,.1f}/s{left}"


def _failures(snapshot: Snapshot) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in snapshot.failures.items())


def _shares(snapshot: Snapshot) -> str:
    shares = {name: share for name, share in snapshot.stage_shares.items() if share >= 0.005}
    return "time: " + " ".join(f"{name} {share:.0%}" for name, share in shares.items()) if shares else ""


def _every(seconds: float, show: Report, *, last: bool = False) -> Report:
    """Show a snapshot every so many seconds and, if wanted, the last one of a run."""
    shown = monotonic()

    def report(snapshot: Snapshot) -> None:
        nonlocal shown
        if monotonic() - shown >= seconds or (last and snapshot.final):
            shown = monotonic()
            show(snapshot)

    return report


def _json_event(snapshot: Snapshot) -> None:
    left = snapshot.seconds_left
    logs.event(
        "done" if snapshot.final else "progress",
        rows=snapshot.rows,
        total=snapshot.total,
        scored=snapshot.scored,
        status=dict(snapshot.status),
        images_per_second=round(snapshot.images_per_second, 3),
        seconds=round(snapshot.seconds, 3),
        seconds_left=None if left is None else round(left, 1),
        stage_shares={name: round(share, 4) for name, share in snapshot.stage_shares.items()},
    )


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.live import Live

    from .score_display import Display, Rewrapped

    console, display = Console(stderr=True), Display()

    def show(snapshot: Snapshot) -> None:
        details = "; ".join(fact for fact in (_failures(snapshot), _shares(snapshot)) if fact)
        display.show(snapshot.rows, snapshot.total, _counts_from_long_to_short(snapshot), details)

    with Live(display, console=console, refresh_per_second=5, transient=True):
        console.push_render_hook(Rewrapped(console, display))
        try:
            yield _every(_BAR_SECONDS, show)
        finally:
            console.pop_render_hook()


def _counts_from_long_to_short(snapshot: Snapshot) -> list[str]:
    left = f"{duration(snapshot.seconds_left)} left" if snapshot.seconds_left is not None else ""
    short = f"{snapshot.rows:,}, {left}" if left else f"{snapshot.rows:,}"
    return [_counts(snapshot), short, left or f"{snapshot.rows:,}"]
