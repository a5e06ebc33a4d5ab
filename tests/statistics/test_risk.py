import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.statistics.risk import allowed, limit, needed


def at_most(count, risk, beyond):
    """Return P(Binomial(count, risk) <= beyond), by its definition."""
    return sum(math.comb(count, j) * risk**j * (1 - risk) ** (count - j) for j in range(beyond + 1))


@given(st.integers(1, 400), st.floats(0.005, 0.5), st.floats(0.5, 0.99))
def test_the_most_that_may_lie_beyond_is_the_largest_unlikely_number(count, risk, confidence):
    beyond = allowed(count, risk, confidence)
    if beyond is None:
        assert at_most(count, risk, 0) > 1 - confidence - 1e-9
        assert count < needed(risk, confidence)
    else:
        assert at_most(count, risk, beyond) <= 1 - confidence + 1e-9
        assert at_most(count, risk, beyond + 1) > 1 - confidence - 1e-9


def test_samples_that_are_just_large_enough():
    assert [needed(risk) for risk in (0.005, 0.01, 0.02)] == [598, 299, 149]
    assert allowed(598, 0.005) == 0
    assert allowed(597, 0.005) is None
    assert allowed(20_000, 0.005) == 83  # about 1.65 standard deviations below 100


def test_limits_are_passed_by_no_more_than_the_risk_in_nineteen_of_twenty_samples():
    chance = np.random.default_rng(0)
    passed = [1 - limit(chance.uniform(size=500), 0.02) for _ in range(400)]  # of all values, so many lie beyond
    assert 0.02 < np.mean(np.array(passed) > 0.02) < 0.08 or np.mean(np.array(passed) > 0.02) <= 0.05
    assert np.mean(passed) > 0.005  # it is not only safe but of use


@pytest.mark.parametrize(("count", "expected"), [(148, None), (149, 148), (400, 396)])
def test_the_limit_is_one_of_the_values(count, expected):
    found = limit(np.arange(count, dtype=np.float64), 0.02)
    assert found == expected
