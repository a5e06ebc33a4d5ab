import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pscr_engine.statistics.float_order import keys_of, shortest, values_of
from pscr_engine.statistics.order_statistics import OrderStatistics

floats = st.floats(width=32, allow_nan=False)
few = st.sampled_from([-2.5, -0.0, 0.0, 1.0, 1.0000001, 3.25, 1e-45, float("inf")])


def array(values):
    return np.array(values, np.float32)


@given(st.lists(floats | few, min_size=1))
def test_keys_are_in_the_order_of_the_values(values):
    values = array(values)
    order = np.argsort(keys_of(values), kind="stable")
    assert (values[order][1:] >= values[order][:-1]).all()
    assert np.array_equal(order, np.argsort(values, kind="stable"))
    assert np.array_equal(values_of(keys_of(values)), values)


@given(floats)
def test_the_shortest_decimal_is_the_same_float(value):
    text = shortest(np.float32(value))
    assert np.float32(text) == np.float32(value)
    assert "e" not in text


def statistics(values, groups, number, ranks, counters):
    found = OrderStatistics(ranks, number, counters)
    passes = 0
    while found.wants_pass():
        passes += 1
        for start in range(0, len(values), 7):  # in pieces, as parts are
            found.add(values[start : start + 7], groups[start : start + 7])
    return found, passes


@settings(deadline=None)
@given(
    st.lists(st.tuples(floats | few, st.integers(0, 3)), max_size=60),
    st.sampled_from([1, 8, 64, 2**12, 2**22]),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_it_is_what_a_sort_gives(rows, counters, shares):
    values = array([value for value, _ in rows])
    groups = np.array([group for _, group in rows], np.int32)

    def ranks(size):
        return sorted({int(share * (size - 1)) for share in shares})

    found, _ = statistics(values, groups, 4, ranks, counters)
    for group in range(4):
        ordered = np.sort(values[groups == group])
        assert found.sizes[group] == len(ordered)
        expected = [
            (ordered[rank], (ordered < ordered[rank]).sum(), (ordered == ordered[rank]).sum())
            for rank in (ranks(len(ordered)) if len(ordered) else [])
        ]
        assert found.of(group) == expected
    assert len(list(found.all())) == sum(len(found.of(group)) for group in range(4))


@pytest.mark.parametrize(("counters", "passes"), [(2**22, 2), (2**16, 4), (1, 32)])
def test_passes_are_few_where_memory_allows(counters, passes):
    values = np.random.default_rng(0).normal(3, 1, 5000).astype(np.float32)
    found, needed = statistics(values, np.zeros(5000, np.int8), 1, lambda size: range(0, size, 5), counters)
    assert needed == passes
    assert [statistic.value for statistic in found.of()] == np.sort(values)[::5].tolist()


def test_nothing_gives_nothing():
    found, passes = statistics(array([]), np.zeros(0, np.int8), 1, lambda size: [0], 2**10)
    assert passes == 1
    assert found.of() == []
