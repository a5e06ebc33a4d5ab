"""One event loop in a thread of its own, for all requests of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="requests", daemon=True).start()
    return loop


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin some work. Any thread may ask, and wait for the result."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


async def gather(work: list[Coroutine[Any, Any, T]], at_once: int) -> list[T]:
    """All results, in order, with so many under way at once. The first error ends the rest."""
    limit = asyncio.Semaphore(at_once)

    async def limited(one: Coroutine[Any, Any, T]) -> T:
        async with limit:
            return await one

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(limited(one)) for one in work]
    return [task.result() for task in tasks]
