"""How good predictions are: rank correlation, relative error, coverage."""

from __future__ import annotations

import numpy as np
from scipy import stats

from latlab.predictors.base import FloatArray, Prediction

__all__ = ["coverage_percent", "kendall", "mape_percent", "spearman", "within_percent"]


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Spearman's rank correlation, ties averaged; NaN for fewer than three pairs or a constant input."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)


def kendall(a: FloatArray, b: FloatArray) -> float:
    """Kendall's tau-b; NaN for fewer than three pairs or a constant input."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.kendalltau(a, b).statistic)


def mape_percent(predicted: FloatArray, measured: FloatArray) -> float:
    """Mean absolute percentage error."""
    return float(100 * np.mean(np.abs(predicted - measured) / measured)) if len(measured) else float("nan")


def within_percent(predicted: FloatArray, measured: FloatArray, percent: float = 10) -> float:
    """Share of predictions, in percent, that miss the measurement by at most `percent` of it."""
    if not len(measured):
        return float("nan")
    return float(100 * np.mean(np.abs(predicted - measured) <= percent / 100 * measured))


def coverage_percent(prediction: Prediction, measured: FloatArray) -> float:
    """Share of measurements, in percent, inside the stated 90 % interval."""
    if not len(measured):
        return float("nan")
    inside = (prediction.lower_ms <= measured) & (measured <= prediction.upper_ms)
    return float(100 * np.mean(inside))
