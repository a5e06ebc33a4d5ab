"""One event loop in a thread of its own, for all requests of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ..host import MadeOnce

T = TypeVar("T")


@MadeOnce
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="requests", daemon=True).start()
    return loop


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the event loop. Any thread may call this, and wait for the result."""
    return asyncio.run_coroutine_threadsafe(work, _loop())
