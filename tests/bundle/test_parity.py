import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.bundle.parity import compare
from pscr_engine.statistics.ranks import spearman


def test_the_report_states_differences_on_the_label_scale():
    reference = np.array([1, 2, 3, 4], np.float32)
    parity = compare("fp32", reference, reference + np.array([0, 1e-4, -2e-4, 0], np.float32), (0.0, 5.0))
    assert parity.max_abs_diff == pytest.approx(2e-4, rel=1e-2)
    assert parity.mean_abs_diff == pytest.approx(0.75e-4, rel=1e-2)
    assert parity.tolerance == pytest.approx(5e-4)
    assert parity.srcc == pytest.approx(1)
    assert parity.passed
    assert not compare("fp32", reference, reference + 1, (0.0, 5.0)).passed


def test_fp16_and_int8_need_their_rank_correlation():
    reference = np.linspace(0, 1e-3, 9, dtype=np.float32)
    assert not compare("fp16", reference, reference[::-1].copy(), (0.0, 5.0)).passed
    assert not compare("int8", reference, reference[::-1].copy(), (0.0, 5.0)).passed


def test_spearman_by_hand():
    assert spearman(np.array([1, 2], np.float32), np.array([1, 2], np.float32)) is None
    assert spearman(np.array([1, 1, 1], np.float32), np.array([1, 2, 3], np.float32)) is None
    assert spearman(np.array([1, 2, 3], np.float32), np.array([9, 5, 1], np.float32)) == pytest.approx(-1)
    # Ties share a rank: (0.5, 0.5, 2) against (0, 1, 2).
    assert spearman(np.array([1, 1, 5], np.float32), np.array([1, 2, 3], np.float32)) == pytest.approx(0.8660254)


@given(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=30, unique=True), st.randoms())
def test_spearman_ignores_any_increasing_change(values, random):
    a = np.array(values, np.float32)
    b = a.copy()
    random.shuffle(values)
    other = np.array(values, np.float32)
    assert spearman(a, other) == pytest.approx(spearman(np.argsort(np.argsort(b)).astype(np.float32), other))
    assert -1.0000001 <= spearman(a, other) <= 1.0000001


few = st.sampled_from([-1.0, 0.0, 0.25, 3.0]) | st.floats(-100, 100, width=32)


@given(st.lists(st.tuples(few, few), min_size=3, max_size=50))
def test_spearman_is_the_correlation_of_mean_ranks(pairs):
    columns = np.array(pairs, np.float32).T

    def ranks(values):
        return [(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values]

    a, b = (np.array(ranks(column)) for column in columns)
    if a.std() and b.std():
        assert spearman(*columns) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    else:
        assert spearman(*columns) is None


def test_spearman_of_more_than_a_block(monkeypatch):
    monkeypatch.setattr("pscr_engine.statistics.ranks._BLOCK", 7)
    dice = np.random.default_rng(0)
    a, b = dice.integers(0, 9, (2, 100)).astype(np.float32)
    whole = spearman(a, b)
    monkeypatch.undo()
    assert whole == pytest.approx(spearman(a, b), abs=1e-12)
