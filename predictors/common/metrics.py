"""Metrics of predictions against measurements: rank correlation, relative error, coverage of intervals."""

from __future__ import annotations

import numpy as np

from latlab.predictors.base import FloatArray, Prediction

__all__ = ["coverage_percent", "kendall", "mape_percent", "spearman", "within_percent"]


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Return Spearman's rank correlation with averaged ties; NaN for fewer than three pairs or a constant input."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(_mean_ranks(a), _mean_ranks(b))[0, 1])


def kendall(a: FloatArray, b: FloatArray) -> float:
    """Return Kendall's tau-b; NaN for fewer than three pairs or a constant input."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    from scipy import stats  # it takes longer to import than all of latlab, and most commands need no tau

    return float(stats.kendalltau(a, b).statistic)


def mape_percent(predicted: FloatArray, measured: FloatArray) -> float:
    """Return the mean absolute error in percent of the measurements; NaN where there are none."""
    return float(100 * np.mean(np.abs(predicted - measured) / measured)) if len(measured) else float("nan")


def within_percent(predicted: FloatArray, measured: FloatArray, percent: float = 10) -> float:
    """Return the percentage of predictions whose error is at most `percent` of the measurement; NaN for none."""
    if not len(measured):
        return float("nan")
    return float(100 * np.mean(np.abs(predicted - measured) <= percent / 100 * measured))


def coverage_percent(prediction: Prediction, measured: FloatArray) -> float:
    """Return the percentage of measurements inside the predicted 90 % interval; NaN for none."""
    if not len(measured):
        return float("nan")
    inside = (prediction.lower_ms <= measured) & (measured <= prediction.upper_ms)
    return float(100 * np.mean(inside))


def _mean_ranks(values: FloatArray) -> FloatArray:
    """Return the rank of each value; equal ones share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks
