import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pscr_training.metrics import logistic_fit, measure


def by_hand(scores, labels):
    """Compute Spearman's rho and Kendall's tau-b from their definitions, with average ranks."""
    ranks = [
        np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])
        for values in (scores, labels)
    ]
    spearman = np.corrcoef(ranks)[0, 1]
    n = len(scores)
    signs = [(np.sign(scores[i] - scores[j]), np.sign(labels[i] - labels[j])) for i in range(n) for j in range(i)]
    both = sum(a * b for a, b in signs)
    untied = [sum(1 for pair in signs if pair[k]) for k in (0, 1)]
    return spearman, both / np.sqrt(untied[0] * untied[1])


@pytest.mark.medium
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(10, 40))
def test_correlations_by_their_definitions(seed, count):
    dice = np.random.default_rng(seed)
    labels = dice.uniform(0, 5, count).round(1)
    scores = (labels + dice.normal(0, 1, count)).round(1)
    found = measure(scores, labels)
    spearman, kendall = by_hand(scores, labels)
    assert found.srcc.value == pytest.approx(spearman, abs=1e-9)
    assert found.krcc.value == pytest.approx(kendall, abs=1e-9)
    assert found.plcc.value == pytest.approx(np.corrcoef(scores, labels)[0, 1], abs=1e-9)
    assert found.rmse.value == pytest.approx(np.sqrt(((scores - labels) ** 2).mean()), abs=1e-9)
    assert found.rmse_logistic.value <= found.rmse.value + 1e-6
    for estimate in (found.srcc, found.krcc, found.plcc, found.rmse):
        assert estimate.low <= estimate.value + 0.1
        assert estimate.high >= estimate.value - 0.1


def test_the_logistic_undoes_a_bent_scale():
    dice = np.random.default_rng(0)
    labels = dice.uniform(0.5, 4.5, 300)
    scores = 10 + 3 * np.log((labels - 0.2) / (4.8 - labels))
    found = measure(scores, labels)
    assert found.plcc_logistic.value > 0.9999 > found.plcc.value
    assert found.rmse_logistic.value < 0.02


def test_scores_that_are_all_equal_have_no_fit():
    scores, labels = np.ones(10), np.arange(10.0)
    assert logistic_fit(scores, labels).shape == (10,)
    assert np.isnan(measure(scores, labels).srcc.value)


@pytest.mark.medium
def test_intervals_cover_the_truth():
    """Draw 25 samples of a known correlation: the 95% interval must nearly always hold it, and not be endless."""
    covered, widths = 0, []
    for seed in range(25):
        dice = np.random.default_rng(seed)
        pair = dice.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 200)
        found = measure(pair[:, 0], pair[:, 1], seed)
        covered += found.plcc.low <= 0.8 <= found.plcc.high
        widths.append(found.plcc.high - found.plcc.low)
    assert covered >= 20
    assert max(widths) < 0.25
