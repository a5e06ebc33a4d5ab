"""The ways of `benchmarks.scorer`, for a fraction of a second: that each runs, and what is reported of it."""

import pytest

from benchmarks.scorer import CALLERS, measure, table
from pscr_engine import Scorer

from ..helpers.images import encoded, pixels


@pytest.mark.medium
def test_all_ways_are_measured(tiny):
    data = [encoded(pixels(60, 50, seed), "JPEG") for seed in range(4)]
    with Scorer.open(tiny.path, device="cpu") as scorer:
        figures = measure(scorer, data, rounds=2, seconds=0.1)
    assert list(figures)[:2] == ["one", "own pipeline"]
    for found in figures.values():
        assert found["calls"] > 0
        assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
        assert found["images_per_second"]["min"] > 0
    assert figures[f"{CALLERS} in turn"]["of_in_turn"] == {"min": 1.0, "median": 1.0, "max": 1.0}
    assert len(table(figures).splitlines()) == 2 + len(figures)
