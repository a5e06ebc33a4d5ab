"""Measure one Scorer in a service: the latency of one image, and the throughput of 32 callers.

python -m benchmarks.scorer
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from time import perf_counter
from typing import Any

import numpy as np

from pscr_engine import Scorer
from pscr_engine.host import fast_int8
from pscr_engine.models import DEFAULT_MODEL
from pscr_engine.scoring import score_images

from .common import made_up_images, record, spread, words

CALLERS = 32
ROUNDS = 3
SECONDS = 3.0
BATCH = 4
METHOD = (
    'The shipped model, `Scorer.open(device="cpu")` with its defaults, in FP32, and in INT8 where the processor has '
    "VNNI; 512×512 JPEGs (quality 92, made-up scenes), their bytes in memory; each call is one image. Within a round "
    "each way runs once, in turn, for three seconds; a call that began in them is waited for and counted. 'one': one "
    "thread calls again and again. 'own pipeline': the same, but each call opens stages and threads of its own, as "
    "every call did before calls were gathered. '32 in turn': 32 threads with a lock around each call, one caller at a "
    "time. '32': 32 threads without a lock. '32 tasks': `score_async` from 32 tasks of one event loop. '32, batches of "
    "4': 32 threads with batch_size=4. Latency is what a call takes as its caller sees it, over all rounds; with 32 "
    "callers it is mostly the wait for the 31 others. Throughput is images per second of a round: minimum, median and "
    "maximum. Ratios are of pairs within a round."
)

Call = Callable[[bytes], Any]


def repeat(call: Call, data: Sequence[bytes], end: float, latencies: list[float], first: int = 0) -> None:
    """Call until it is `end`, and note how long each call takes, in seconds."""
    number = first
    while (start := perf_counter()) < end:
        scored = call(data[number % len(data)])
        latencies.append(perf_counter() - start)
        assert scored.ok, scored.error
        number += 1


def by_threads(callers: int, call: Call, data: Sequence[bytes], seconds: float) -> tuple[list[float], float]:
    """Return the calls' latencies and how long all took, in seconds."""
    start = perf_counter()
    latencies: list[list[float]] = [[] for _ in range(callers)]
    threads = [
        Thread(target=repeat, args=(call, data, start + seconds, latencies[number], number))
        for number in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = perf_counter() - start
    return [latency for found in latencies for latency in found], took


def by_tasks(callers: int, scorer: Scorer, data: Sequence[bytes], seconds: float) -> tuple[list[float], float]:
    """Return the same for tasks of one event loop."""
    latencies: list[float] = []

    async def task(number: int, end: float) -> None:
        while (start := perf_counter()) < end:
            scored = await scorer.score_async(data[number % len(data)])
            latencies.append(perf_counter() - start)
            assert scored.ok, scored.error
            number += 1

    async def all_tasks() -> None:
        end = perf_counter() + seconds
        await asyncio.gather(*(task(number, end) for number in range(callers)))

    start = perf_counter()
    asyncio.run(all_tasks())
    return latencies, perf_counter() - start


def measure(scorer: Scorer, data: Sequence[bytes], *, rounds: int, seconds: float) -> dict[str, Any]:
    """Run all ways in turn, and return latencies and throughput of each."""
    lock = Lock()

    def in_turn(image: bytes) -> Any:
        with lock:
            return scorer.score(image)

    def own_pipeline(image: bytes) -> Any:
        return next(score_images(scorer.bundle, scorer.backend, [image]))

    def in_batches(image: bytes) -> Any:
        return scorer.score(image, batch_size=BATCH)

    ways: dict[str, Callable[[float], tuple[list[float], float]]] = {
        "one": lambda seconds: by_threads(1, scorer.score, data, seconds),
        "own pipeline": lambda seconds: by_threads(1, own_pipeline, data, seconds),
        f"{CALLERS} in turn": lambda seconds: by_threads(CALLERS, in_turn, data, seconds),
        f"{CALLERS}": lambda seconds: by_threads(CALLERS, scorer.score, data, seconds),
        f"{CALLERS} tasks": lambda seconds: by_tasks(CALLERS, scorer, data, seconds),
        f"{CALLERS}, batches of {BATCH}": lambda seconds: by_threads(CALLERS, in_batches, data, seconds),
    }
    latencies: dict[str, list[float]] = {way: [] for way in ways}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways.values():
        way(0.01)  # opens stages, warms up
    for _ in range(rounds):
        for name, way in ways.items():
            found, took = way(seconds)
            latencies[name] += found
            rates[name].append(len(found) / took)
    alone = f"{CALLERS} in turn"
    return {
        name: {
            "calls": len(latencies[name]),
            "latency_ms": {
                f"p{share}": float(f"{np.percentile(latencies[name], share) * 1000:.4g}") for share in (50, 95, 99)
            },
            "images_per_second": spread(rates[name]),
            "of_in_turn": spread([mine / other for mine, other in zip(rates[name], rates[alone], strict=True)]),
        }
        for name in ways
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures of one precision as a table for a page."""
    lines = ["| | images/s | of one at a time | p50, ms | p95, ms | p99, ms |", "| --- | --- | --- | --- | --- | --- |"]
    for name, found in figures.items():
        latency = " | ".join(f"{value:.1f}" for value in found["latency_ms"].values())
        rate, ratio = found["images_per_second"]["median"], found["of_in_turn"]["median"]
        lines.append(f"| {name} | {rate:.1f} | {ratio:.2f}× | {latency} |")
    return "\n".join(lines)


def main() -> None:
    data = [path.read_bytes() for path in made_up_images()]
    figures = {}
    for precision in ("int8", "fp32") if fast_int8() else ("fp32",):
        with Scorer.open(DEFAULT_MODEL, device="cpu", precision=precision) as scorer:
            backend = {"backend": scorer.backend.name, "precision": scorer.backend.precision}
            ways = measure(scorer, data, rounds=ROUNDS, seconds=SECONDS)
        figures[precision] = {**backend, "ways": ways}
        print(f"{precision}, {backend['backend']}\n{table(ways)}\n", flush=True)
    print(record("scorer", METHOD, {"callers": CALLERS, "rounds": ROUNDS, "seconds": SECONDS, "figures": figures}))


if __name__ == "__main__":
    words(__doc__, ())
    main()
