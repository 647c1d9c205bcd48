"""Labels as log-latencies: their check and conversion, and predictions of log-latency in milliseconds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from latlab.predictors.base import Archs, FloatArray, Prediction

__all__ = ["CENTRAL", "from_log", "half_width", "in_ms", "log_labels", "log_or_tangent"]

CENTRAL = 0.90
"""Probability that the predicted interval holds a new measurement."""


def log_labels(
    support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the log-latencies of the support and the variances of their noise, each of shape (n,).

    A variance is (stderr / latency)^2, to first order; 0 where the standard error is not known.

    Raises:
        ValueError: lengths differ, a latency is not positive and finite, or a standard error is negative.
    """
    latency = np.asarray(latency_ms, dtype=np.float64)
    stderr = np.zeros_like(latency) if stderr_ms is None else np.asarray(stderr_ms, dtype=np.float64)
    if not len(support) == len(latency) == len(stderr):
        raise ValueError("support, latency_ms and stderr_ms must have the same length")
    if not (np.isfinite(latency).all() and (latency > 0).all()):
        raise ValueError("latencies must be positive and finite")
    if (stderr < 0).any():
        raise ValueError("standard errors must not be negative")
    return np.log(latency), (np.nan_to_num(stderr) / latency) ** 2


def from_log(log_latency: FloatArray, label_variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return latencies and standard errors in ms, each of shape (n,): the inverse of `log_labels`."""
    with np.errstate(over="ignore"):  # of a damaged file; `log_labels` refuses what comes out
        latency = np.exp(log_latency)
    return latency, latency * np.sqrt(label_variance)


def log_or_tangent(ratio: FloatArray) -> FloatArray:
    """Return the logarithms of ratios, continued below 1 by the tangent there: ratio - 1, also for negative ones.

    It gives an order to latencies of a network that may predict negative ones, as ratios to a small latency.
    """
    return np.where(ratio > 1, np.log(np.maximum(ratio, 1)), ratio - 1)


def half_width(freedom: FloatArray | float) -> FloatArray | float:
    """Return half the width of the central interval of a standard Student-t distribution."""
    return (
        _quantile(float(freedom)) if np.ndim(freedom) == 0 else np.asarray(special.stdtrit(freedom, (1 + CENTRAL) / 2))
    )


@lru_cache(maxsize=256)
def _quantile(freedom: float) -> float:
    """Return the upper end of that interval; remembered, because scipy takes longer for it than one prediction does."""
    return float(special.stdtrit(freedom, (1 + CENTRAL) / 2))


def in_ms(
    mean: FloatArray, variance: FloatArray, freedom: FloatArray | float, shift: FloatArray | float | None = None
) -> Prediction:
    """Return predictions in milliseconds for log-latencies with Student-t distributions.

    Args:
        mean, variance: mean and variance of the log-latencies, shape (n,).
        freedom: degrees of freedom of the interval, a number or of shape (n,). The standard deviation in ms is that of
            a log-normal distribution, because a Student-t in log-latency has none in ms.
        shift: term that is added to `mean` before it becomes the mean in ms; by default variance / 2, which gives the
            mean of a log-normal distribution. A constant keeps the order of `mean`.
    """
    width = half_width(freedom) * np.sqrt(variance)
    mean_ms = np.exp(mean + (variance / 2 if shift is None else shift))
    return Prediction(mean_ms, mean_ms * np.sqrt(np.expm1(variance)), np.exp(mean - width), np.exp(mean + width))
