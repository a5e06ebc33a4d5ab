"""The rule by which images are decided, made from a calibration."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pscr_engine.backends.early import early_rule, first_patches, spread
from pscr_engine.bundle import PatchScores
from pscr_engine.errors import BundleError, UsageError
from pscr_engine.statistics.risk import allowed

from ..helpers.tiny import make_bundle

D = 9


def prefix_scores(count, seed, noise=0.3):
    """Make up scores by 1, 2, ... D patches: means of values around each image's own."""
    chance = np.random.default_rng(seed)
    values = chance.normal(3, 1, (count, 1)) + chance.normal(0, noise, (count, D))
    return (np.cumsum(values, axis=1) / np.arange(1, D + 1)).astype(np.float32)


def decisions(rule, scores):
    """Follow a rule for images whose scores by any number of patches are known; return kept and patches used."""
    kept, used = [], []
    for row in scores:
        patches = next(k for k in range(1, D + 1) if rule.decided(row[k - 1 : k], k)[0])
        kept.append(rule.decision(float(row[patches - 1])) == "keep")
        used.append(patches)
    return np.array(kept), np.array(used)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("early") / "m.pscr")


def calibrated(bundle, scores):
    return replace(bundle, patch_scores=PatchScores(tuple(reversed(range(D))), {"fp32": scores}))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(1, 5), st.sampled_from([0.01, 0.02, 0.05]))
@example(950, 4.397087991719808, 0.01)  # one image lies on the margin, where rounding decided
def test_few_decisions_about_calibration_images_change(bundle, seed, threshold, risk):
    scores = prefix_scores(400, seed)
    rule = early_rule(calibrated(bundle, scores), "fp32", threshold, risk)
    kept, used = decisions(rule, scores)
    assert (kept != (scores[:, -1] >= threshold)).sum() <= allowed(400, risk)
    low, high = zip(*(rule.interval(float(row[k - 1]), k) for row, k in zip(scores, used, strict=True)), strict=True)
    outside = (scores[:, -1] < np.array(low) - 1e-6) | (scores[:, -1] > np.array(high) + 1e-6)
    assert outside.sum() <= allowed(400, risk)


def test_few_decisions_about_other_images_change_and_most_take_few_patches(bundle):
    scores, others = prefix_scores(2000, 1), prefix_scores(4000, 2)
    threshold = float(np.quantile(others[:, -1], 0.9))
    rule = early_rule(calibrated(bundle, scores), "fp32", threshold, 0.01)
    kept, used = decisions(rule, others)
    assert (kept != (others[:, -1] >= threshold)).mean() <= 0.01
    assert used.mean() < 3
    assert rule.order == tuple(reversed(range(D)))


def test_a_score_that_is_no_number_is_looked_at_with_all_patches(bundle):
    rule = early_rule(calibrated(bundle, prefix_scores(400, 1)), "fp32", 3.0, 0.02)
    odd = np.array([np.nan, np.inf], np.float32)
    assert not rule.decided(odd[:1], 1)[0]
    assert rule.decided(odd, D).all()


def test_means_of_patches_spread_like_the_margins(bundle):
    chance = np.random.default_rng(0)
    values = chance.normal(size=(20_000, D))
    partial = np.cumsum(values, axis=1) / np.arange(1, D + 1)
    measured = (partial[:, :-1] - partial[:, -1:]).std(axis=0)
    np.testing.assert_allclose(measured, spread(D), rtol=0.03)


def test_bundles_that_are_not_calibrated_or_not_on_enough_images(bundle):
    with pytest.raises(BundleError, match=r"has no calibration, which keep_above=3.0 needs: .*pscr-engine calibrate"):
        early_rule(bundle, "fp32", 3.0, 0.01)
    with pytest.raises(BundleError, match="has no calibration"):
        first_patches(bundle, 3)
    few = calibrated(bundle, prefix_scores(298, 1))
    with pytest.raises(BundleError, match=r"calibrated on 298 images, and risk 0.01 takes at least 299"):
        early_rule(few, "fp32", 3.0, 0.01)
    with pytest.raises(BundleError, match="not calibrated in int8"):
        early_rule(few, "int8", 3.0, 0.02)
    for count in (0, 10):
        with pytest.raises(UsageError, match="have 9 patches; take from 1 to 9"):
            first_patches(few, count)
    assert first_patches(few, 3).order == (8, 7, 6)
