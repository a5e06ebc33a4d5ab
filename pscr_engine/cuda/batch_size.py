"""Find the batch size from which on larger ones bring next to nothing, and remember it for this host and bundle."""

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
# Of the best rate: the knee is the smallest batch that reaches it.
_KNEE = 0.97
# A batch that brings no more than this over the one before is the last one tried.
_WORTH_IT = 1.02
_MEASURED_SECONDS = 0.4
_MIN_RUNS = 3
# Slots of a run, each with its patches, and the engine's own memory, which grows about as they do.
_BATCHES_IN_MEMORY = 8


def knee(rates: Mapping[int, float]) -> int:
    """The smallest batch size whose rate is close to the best one.

    Args:
        rates: batch size → images per second.
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= _KNEE * best)


def find_batch_size(engine: Engine, device: Device, shape: Shape, identity: Mapping[str, object]) -> int:
    """Set the engine to the best batch size: the remembered one, or else by measuring.

    Args:
        engine: nothing is under way on it.
        device: current in this thread.
        shape: of the engine's tensors.
        identity: all else that the answer depends on.

    Returns:
        B, which the engine is set to.

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
    shown = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    log.info("cuda:%d: batches of %d (images/s by batch size: %s)", device.index, chosen, shown)
    with suppress(OSError):  # then it is measured again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            temporary.write_text(json.dumps({"batch_size": chosen, "images_per_second": rates}) + "\n")
    return chosen


def measure_batch_sizes(
    engine: Engine, device: Device, shape: Shape, candidates: tuple[int, ...] = CANDIDATES, *, to_the_end: bool = False
) -> dict[int, float]:
    """Images per second of the engine alone, by batch size.

    Args:
        engine: nothing is under way on it.
        device: current in this thread.
        shape: of the engine's tensors.
        candidates: batch sizes, ascending. It stops where memory ends,
        to_the_end: and, unless this is set, at the first one that brings nothing over the one before.

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
        brings = rate / max(rates.values(), default=rate / 2)
        rates[size] = rate
        if brings < _WORTH_IT and not to_the_end:
            break
    return rates


def _rate(engine: Engine, device: Device, shape: Shape, size: int) -> float:
    engine.resize(size)
    slots: list[Slot] = []
    try:
        slots += [Slot(device, None, size, shape, Wanted(), lane) for lane in range(len(engine.streams))]
        _run(engine, slots, 1)  # chooses algorithms
        seconds = _run(engine, slots, 1)
        runs = max(_MIN_RUNS, ceil(_MEASURED_SECONDS / max(seconds, 1e-6)))
        return runs * len(slots) * size / _run(engine, slots, runs)
    finally:
        for slot in slots:
            slot.free()


def _run(engine: Engine, slots: list[Slot], times: int) -> float:
    """Seconds for as many batches on each lane. What is in the slots does not matter for the time."""
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
