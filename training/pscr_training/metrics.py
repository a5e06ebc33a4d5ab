"""Measures how well scores agree with labels: correlations and errors, with bootstrap intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, rankdata

Floats = NDArray[np.float64]

_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)


class Estimate(NamedTuple):
    """A value and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Agreement of N scores with N labels.

    Args:
        images: N.
        srcc: Spearman's rank correlation.
        krcc: Kendall's tau-b.
        plcc: Pearson's correlation.
        plcc_logistic: the same after the four-parameter logistic of VQEG has been fitted to the labels.
        rmse: root mean squared difference to the labels.
        rmse_logistic: the same after the fit.
    """

    images: int
    srcc: Estimate
    krcc: Estimate
    plcc: Estimate
    plcc_logistic: Estimate
    rmse: Estimate
    rmse_logistic: Estimate

    def as_json(self) -> dict[str, Any]:
        """Return the metrics as plain values, for a JSON file."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def measure(scores: Floats, labels: Floats, seed: int = 0) -> Metrics:
    """Compute all metrics. The bootstrap resamples images; the logistic is fitted once, to all of them.

    Args:
        scores: float [N].
        labels: float [N].
        seed: seed of the bootstrap.
    """
    fitted = logistic_fit(scores, labels)
    drawn = _resamples(len(scores), seed)

    def estimate(metric: Callable[[Floats, Floats], float], predicted: Floats) -> Estimate:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of resamples in which all values are equal
            values = [metric(predicted[index], labels[index]) for index in drawn]
            return Estimate(metric(predicted, labels), *_interval(values))

    return Metrics(
        len(scores),
        estimate(srcc, scores),
        estimate(_krcc, scores),
        estimate(plcc, scores),
        estimate(plcc, fitted),
        estimate(_rmse, scores),
        estimate(_rmse, fitted),
    )


def differences(scores: Floats, others: Floats, labels: Floats, seed: int = 0) -> dict[str, Estimate]:
    """Compute how much better `others` agree with the labels than `scores`: each metric's difference, others − scores.

    The bootstrap is paired: each resample of the images is applied to both, so that what both find hard cancels out.

    Args:
        scores: float [N], of one model.
        others: float [N], of another one, for the same images.
        labels: float [N].
        seed: seed of the bootstrap; the resamples are those of `measure`.

    Returns:
        The difference in SRCC, KRCC, PLCC and RMSE with its 95% interval, by the metric's name in `Metrics`.
    """
    drawn = _resamples(len(labels), seed)

    def estimate(metric: Callable[[Floats, Floats], float]) -> Estimate:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of resamples in which all values are equal
            values = [metric(others[at], labels[at]) - metric(scores[at], labels[at]) for at in drawn]
            return Estimate(metric(others, labels) - metric(scores, labels), *_interval(values))

    return {name: estimate(metric) for name, metric in _COMPARED.items()}


def _resamples(count: int, seed: int) -> list[NDArray[np.int64]]:
    dice = np.random.default_rng(seed)
    return [dice.integers(count, size=count) for _ in range(_RESAMPLES)]


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, _INTERVAL)
    return float(low), float(high)


def srcc(scores: Floats, labels: Floats) -> float:
    """Compute Spearman's rank correlation; NaN where all values are equal."""
    return plcc(rankdata(scores), rankdata(labels))


def plcc(scores: Floats, labels: Floats) -> float:
    """Compute Pearson's correlation; NaN where all values are equal.

    SciPy's `pearsonr` also tests significance, which takes most of its time; bootstraps compute thousands.
    """
    if (scores == scores[0]).all() or (labels == labels[0]).all():
        return math.nan
    x, y = scores - scores.mean(), labels - labels.mean()
    return float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1, 1))  # roundings may lead beyond; NaN stays


def logistic_fit(scores: Floats, labels: Floats) -> Floats:
    """Map `scores` by VQEG's (b1 − b2) / (1 + exp(−(x − b3) / |b4|)) + b2, fitted to `labels`.

    Where the fit does not converge, scores are returned as they are. (VQEG, Final report, phase I, 2000, section 6.)
    """

    def logistic(x: Floats, b1: float, b2: float, b3: float, b4: float) -> Floats:
        return (b1 - b2) / (1 + np.exp(-(x - b3) / (abs(b4) + 1e-12))) + b2

    begin = [labels.max(), labels.min(), scores.mean(), max(float(scores.std()), 1e-6)]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            coefficients, _ = curve_fit(logistic, scores, labels, p0=begin, maxfev=20_000)
            fitted = logistic(scores, *coefficients)
    except (RuntimeError, TypeError, ValueError):
        return scores
    return fitted if np.isfinite(fitted).all() else scores


def _rmse(scores: Floats, labels: Floats) -> float:
    return float(np.sqrt(np.mean((scores - labels) ** 2)))


def _krcc(scores: Floats, labels: Floats) -> float:
    return float(kendalltau(scores, labels).statistic)


_COMPARED = {"srcc": srcc, "krcc": _krcc, "plcc": plcc, "rmse": _rmse}
