"""Rates of work that is enqueued on a stream, or done in threads."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import perf_counter


def rate(work: Callable[[], object], done: Callable[[], object], items: int, seconds: float) -> float:
    """Items per second.

    Args:
        work: does, or enqueues, `items` of them.
        done: waits for what is enqueued.
        items: per call.
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
