"""Measure which engine is faster on this processor: once per host, bundle, precision, threads and versions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from ..errors import PscrError
from ..sampling import Sampling
from ..stages.infer import PatchScorer
from .findings import Finding

log = logging.getLogger("pscr_engine")

Engine = TypeVar("Engine", bound=PatchScorer)

KIND = "engines"
# Rounds in turn, so that whatever else the host does meets all engines alike; each long enough to be told from noise.
_ROUNDS, _SECONDS_PER_ROUND = 3, 0.4
# A later engine must be this much faster to be taken: less is noise, and the first one made the bundle's checks.
_WORTH_IT = 1.03


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine was faster.

    Args:
        engine: its name, as in `--backend`.
        rates: engine → images per second; empty if they were not measured.
        when: when it was measured, in words.
    """

    engine: str
    rates: Mapping[str, float]
    when: str

    def __str__(self) -> str:
        """Say it in one line."""
        rates = "".join(f"{name} {rate:.3g} images/s, " for name, rate in self.rates.items())
        return f"engine {self.engine} ({rates}{self.when})"


def choose_engine(
    create: Mapping[str, Callable[[], Engine]],
    sampling: Sampling,
    depends_on: Mapping[str, Any],
    *,
    measure: bool = True,
) -> tuple[EngineChoice, Engine]:
    """Open the faster engine: as measured on this host before, else by measuring now, for some three seconds.

    Args:
        create: engine → how to open it; the first one is taken unless another is clearly faster.
        sampling: the bundle's.
        depends_on: what else the answer depends on.
        measure: whether to measure if it has not been done yet; else the first engine is taken.

    Raises:
        PscrError: none of the engines can be used.
    """
    finding = Finding(KIND, {**depends_on, "engines": list(create)})
    first = next(iter(create))
    choice = _remembered(finding, create)
    if choice is None and not measure:
        choice = EngineChoice(first, {}, "not measured on this host yet, too few images for it to pay")
    if choice is None:
        with finding.measuring():
            choice = _remembered(finding, create)  # by a process that this one waited for
            if choice is None:
                return _measured(finding, create, sampling)
    try:
        return choice, create[choice.engine]()
    except PscrError as error:
        if choice.engine == first:
            raise
        log.warning("%s; going on with %s", error, first)
        return EngineChoice(first, {}, "the only one that can be used"), create[first]()


def _measured(
    finding: Finding, create: Mapping[str, Callable[[], Engine]], sampling: Sampling
) -> tuple[EngineChoice, Engine]:
    opened: dict[str, Engine] = {}
    lacking: list[PscrError] = []
    for name, make in create.items():
        try:
            opened[name] = make()
        except PscrError as error:
            log.warning("%s; going on without %s", error, name)
            lacking.append(error)
    if not opened:
        raise lacking[-1]
    first = next(iter(opened))
    if lacking:  # what is amiss may be mended by the next start: only comparisons are kept
        return EngineChoice(first, {}, "the only one that can be used"), opened[first]
    rates = measure_rates(opened, sampling)
    best = max(rates, key=rates.__getitem__)
    chosen = best if rates[best] >= _WORTH_IT * rates[first] else first
    if not finding.keep({"engine": chosen, "rates": rates}):
        log.warning("which engine is faster can't be kept in the user's cache; it is measured again next time")
    return EngineChoice(chosen, rates, "measured now"), opened[chosen]


def _remembered(finding: Finding, engines: Container[str]) -> EngineChoice | None:
    kept = finding.read()
    if kept is None or kept.get("engine") not in engines:
        return None
    return EngineChoice(kept["engine"], dict(kept.get("rates") or {}), "measured on this host before")


def measure_rates(opened: Mapping[str, PatchScorer], sampling: Sampling) -> dict[str, float]:
    """Measure images per second of each engine, each with as many calls at once as it wants: medians of rounds."""
    shape = (sampling.patches, sampling.patch_size, sampling.patch_size, 3)
    patches = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rates: dict[str, list[float]] = {name: [] for name in opened}
    for engine in opened.values():
        engine.score(patches)  # the first call allocates
    for _ in range(_ROUNDS):
        for name, engine in opened.items():
            rates[name].append(_rate(engine, patches))
    return {name: median(each) for name, each in rates.items()}


def _rate(engine: PatchScorer, patches: np.ndarray) -> float:
    start = perf_counter()

    def score_for_a_while(_: int) -> int:
        images = 0
        while not images or perf_counter() - start < _SECONDS_PER_ROUND:
            engine.score(patches)
            images += 1
        return images

    with ThreadPoolExecutor(engine.runs) as pool:
        images = sum(pool.map(score_for_a_while, range(engine.runs)))
    return images / (perf_counter() - start)
