"""Measure the rate of work that is enqueued on a stream, or done in threads."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import perf_counter


def rate(work: Callable[[], object], done: Callable[[], object], items: int, seconds: float) -> float:
    """Measure items per second.

    Args:
        work: does or enqueues the work of one call.
        done: waits for what is enqueued.
        items: how many a call of `work` does.
        seconds: about how long to measure, after three calls to warm up.
    """
    for _ in range(3):
        start = perf_counter()
        work()
        done()
        once = perf_counter() - start
    times = max(3, ceil(seconds / max(once, 1e-7)))
    start = perf_counter()
    for _ in range(times):
        work()
    done()
    return times * items / (perf_counter() - start)
