"""Measure how long one batch takes from encoded bytes to scores, with nothing else under way."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from time import perf_counter

import numpy as np

from ..backends.base import Backend
from ..bundle import Bundle
from ..records import MicroBatch, Query
from ..stages.base import StageSettings, run_through
from ..stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions
from .images import require_ok

_PERCENTILES = (50, 90, 95, 99)
_LEAST_BATCHES = 20
_WARM_BATCHES = 3


def latency(
    bundle: Bundle, backend: Backend, batch_size: int, data: Sequence[bytes], seconds: float
) -> dict[str, float]:
    """Measure milliseconds per batch, by percentile: decode, sample and infer, one after the other.

    Args:
        bundle: what decides how patches are sampled.
        backend: what scores.
        batch_size: B.
        data: encoded images; taken in turn.
        seconds: how long to measure; at least 20 batches.

    Raises:
        PscrError: an image can't be scored.
    """
    sampling = bundle.info.sampling
    decoding = DecodeOptions.for_sampling(sampling, DEFAULT_MAX_PIXELS, "upscale")
    settings = StageSettings(sampling, decoding, batch_size)
    taken: list[float] = []
    with closing(backend.stages(settings)) as chain:
        begun = perf_counter()
        while len(taken) < _LEAST_BATCHES + _WARM_BATCHES or perf_counter() - begun < seconds:
            first = len(taken) * batch_size
            queries = [Query(row, "an image", data=data[(first + row) % len(data)]) for row in range(batch_size)]
            batch, start = MicroBatch(queries), perf_counter()
            run_through(chain, batch)
            taken.append(perf_counter() - start)
            require_ok(queries)
    values = np.percentile(np.array(taken[_WARM_BATCHES:]) * 1e3, _PERCENTILES)
    return {f"p{percent}": float(f"{value:.4g}") for percent, value in zip(_PERCENTILES, values, strict=True)}
