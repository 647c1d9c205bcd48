"""What predictors share about labels: checking them, and turning log-latency back into milliseconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from latlab.predictors.base import Archs, FloatArray, Prediction

__all__ = ["from_log", "in_ms", "log_labels"]

CENTRAL = 0.90
"""Probability of the stated intervals."""


def log_labels(
    support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Log-latencies of the support and the variance of their noise, each of shape (n,).

    The variance is (stderr / latency)^2, first order; 0 where the standard error is not known.

    Raises:
        ValueError: lengths differ, or a latency is not positive and finite.
    """
    latency = np.asarray(latency_ms, dtype=np.float64)
    stderr = np.zeros_like(latency) if stderr_ms is None else np.asarray(stderr_ms, dtype=np.float64)
    if not len(support) == len(latency) == len(stderr):
        raise ValueError("support, latency_ms and stderr_ms must have the same length")
    if not (np.isfinite(latency).all() and (latency > 0).all()):
        raise ValueError("latencies must be positive and finite")
    return np.log(latency), (np.nan_to_num(stderr) / latency) ** 2


def from_log(log_latency: FloatArray, label_variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The reverse of `log_labels`: latencies and standard errors in ms, each of shape (n,)."""
    latency = np.exp(log_latency)
    return latency, latency * np.sqrt(label_variance)


def in_ms(
    mean: FloatArray, variance: FloatArray, freedom: FloatArray | float, shift: FloatArray | float | None = None
) -> Prediction:
    """Predictions in milliseconds from Student-t ones of log-latency.

    Args:
        mean, variance: of log-latency, shape (n,).
        freedom: degrees of freedom of the interval, one or of shape (n,); mean and deviation are those of a log-normal.
        shift: what is added to `mean` before it becomes the mean in ms: by default variance / 2, as of a log-normal.
            A constant keeps the order of `mean`.
    """
    width = stats.t.ppf((1 + CENTRAL) / 2, freedom) * np.sqrt(variance)
    mean_ms = np.exp(mean + (variance / 2 if shift is None else shift))
    return Prediction(mean_ms, mean_ms * np.sqrt(np.expm1(variance)), np.exp(mean - width), np.exp(mean + width))
