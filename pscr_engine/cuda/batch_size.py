"""Find the batch size beyond which throughput hardly grows, and remember it for this host and bundle."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from math import ceil
from pathlib import Path
from time import perf_counter

from ..atomic import atomic_file
from ..errors import BackendError
from ..host import cache_folder
from .device import Device
from .engine import Engine, Shape
from .slot import Slot, Wanted

log = logging.getLogger("pscr_engine")

CANDIDATES = (16, 32, 64, 128, 256)
# The knee is the smallest batch size that reaches this share of the best rate.
_KNEE = 0.97
# Measuring stops at the first batch size whose rate is less than this many times the best so far.
_WORTH_IT = 1.02
_MEASURED_SECONDS = 0.4
_MIN_RUNS = 3
# A size is tried if so many batches' patches fit: the slots' own, and about as much for the engine's memory.
_BATCHES_IN_MEMORY = 8


def knee(rates: Mapping[int, float]) -> int:
    """Return the smallest batch size whose rate is close to the best one.

    Args:
        rates: batch size → images per second.
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= _KNEE * best)


def find_batch_size(engine: Engine, device: Device, shape: Shape, identity: Mapping[str, object]) -> int:
    """Set the engine to its best batch size: the one remembered on this host, or else one found by measuring.

    Args:
        engine: what to set; nothing may be under way on it.
        device: the engine's, current in this thread.
        shape: sizes of the engine's tensors.
        identity: what else the best size depends on: the engine, its version, the precision and the bundle.

    Returns:
        The batch size B that the engine is now set to.

    Raises:
        BackendError: not even the smallest batch can be run.
    """
    file = _file({"host": platform.node(), "gpu": device.name, "driver": device.driver, **identity})
    remembered = _read(file)
    if remembered is not None:
        with suppress(BackendError):  # there may be less memory than there was
            engine.resize(remembered)
            log.info("cuda:%d: batches of %d, as found on this host before", device.index, remembered)
            return remembered
    rates = measure_batch_sizes(engine, device, shape)
    chosen = knee(rates)
    engine.resize(chosen)
    measured = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    log.info("cuda:%d: batches of %d (images/s by batch size: %s)", device.index, chosen, measured)
    with suppress(OSError):  # if it can't be kept, the next start measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            temporary.write_text(json.dumps({"batch_size": chosen, "images_per_second": rates}) + "\n")
    return chosen


def measure_batch_sizes(
    engine: Engine, device: Device, shape: Shape, candidates: tuple[int, ...] = CANDIDATES, *, to_the_end: bool = False
) -> dict[int, float]:
    """Measure images per second of the engine alone, without the other stages, for each batch size.

    Args:
        engine: what to measure; nothing may be under way on it.
        device: the engine's, current in this thread.
        shape: sizes of the engine's tensors.
        candidates: batch sizes to try, ascending.
        to_the_end: try all that fit in memory; by default, stop at the first that gains under 2%.

    Raises:
        BackendError: not even the smallest batch can be run.
    """
    rates: dict[int, float] = {}
    for size in candidates:
        if rates and _BATCHES_IN_MEMORY * size * shape.image_bytes > device.memory()[0]:
            break
        try:
            rate = _rate(engine, device, shape, size)
        except BackendError:  # too little memory, or more than a plan takes
            if not rates:
                raise
            break
        gain = rate / max(rates.values(), default=rate / 2)
        rates[size] = rate
        if gain < _WORTH_IT and not to_the_end:
            break
    return rates


def _rate(engine: Engine, device: Device, shape: Shape, size: int) -> float:
    engine.resize(size)
    slots: list[Slot] = []
    try:
        slots += [Slot(device, None, size, shape, Wanted(), lane) for lane in range(len(engine.streams))]
        _run(engine, slots, 1)  # not timed: the engine chooses its algorithms
        seconds = _run(engine, slots, 1)
        runs = max(_MIN_RUNS, ceil(_MEASURED_SECONDS / max(seconds, 1e-6)))
        return runs * len(slots) * size / _run(engine, slots, runs)
    finally:
        for slot in slots:
            slot.free()


def _run(engine: Engine, slots: list[Slot], times: int) -> float:
    """Run `times` batches in each slot and return the seconds; the slots' content does not matter for the time."""
    start = perf_counter()
    for _ in range(times):
        for slot in slots:
            engine.enqueue(slot.engine_tensors, slot.lane)
    for stream in engine.streams:
        stream.synchronize()
    return perf_counter() - start


def _file(identity: Mapping[str, object]) -> Path:
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
    return cache_folder() / f"batch-size-{digest}.json"


def _read(file: Path) -> int | None:
    try:
        value = json.loads(file.read_text())["batch_size"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return value if type(value) is int and value > 0 else None
