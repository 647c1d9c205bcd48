"""A robust Bayesian line from a score to log-latency, which one label is enough to fit and which never falls.

    log t_i = a + b z_i + e_i,   e_i ~ t_4(0, s^2 + v_i),   b ~ N(slope, slope_sd^2) cut off at 0,   s^2 ~ inv-chi^2

z is a score in standard deviations over the space, v_i the known variance of a label. The heavy tails are a scale
mixture of normals, fitted by expectation-maximisation. E: w_i = 5 / (4 + r_i^2 / (s^2 + v_i)). M: (a, b) by weighted
least squares under the prior, s^2 from the residuals with the line's own uncertainty added to them (Gelman et al.,
Bayesian Data Analysis, 3rd edition, sections 14.2, 17.2 and 17.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from latlab.predictors.base import FloatArray, Prediction
from latlab.predictors.common.log_latency import in_ms

__all__ = ["Line"]

SLOPE, SLOPE_SD = 0.3, 0.3
"""Prior mean and deviation of the slope, in log-latency per standard deviation of a score. The log-latencies of a space
spread over about as much."""
LEVEL_SD = 30.0
"""Prior deviation of the intercept around the labels' median: it is unknown."""
NOISE, NOISE_FREEDOM = 0.1, 2.0
"""Prior value of s, and the number of labels that this prior counts for."""
FREEDOM = 4.0
"""Degrees of freedom of the t distribution of a label."""
STEPS = 60
"""Number of expectation-maximisation steps."""


@dataclass(frozen=True)
class Line:
    """The posterior of the line, given scores `z`, log-latencies `y` and label variances, each of shape (n,).

    n may be 0, which leaves the prior.
    """

    z: FloatArray
    y: FloatArray
    label_variance: FloatArray
    slope: float = SLOPE
    slope_sd: float = SLOPE_SD

    @cached_property
    def _fit(self) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        """Mean and covariance of (a, b) before b is cut off at 0, the precision of each label, and s^2."""
        design = self._design(self.z)
        prior = np.diag([LEVEL_SD**-2, self.slope_sd**-2])
        pull = prior @ np.array([np.median(self.y) if len(self.y) else 0.0, self.slope])
        weight, noise = np.ones_like(self.y), NOISE**2
        for _ in range(STEPS):
            total = noise + self.label_variance
            precision = prior + design.T @ (design * (weight / total)[:, None])
            covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
            line = covariance @ (pull + design.T @ (weight / total * self.y))
            square = (self.y - design @ line) ** 2 + _quadratic(design, covariance)
            weight = (FREEDOM + 1) / (FREEDOM + square / total)
            share = noise / total
            latent = share**2 * weight * square + share * self.label_variance
            noise = (NOISE_FREEDOM * NOISE**2 + float(latent.sum())) / (NOISE_FREEDOM + len(self.y))
        return line, covariance, weight / (noise + self.label_variance), noise

    @staticmethod
    def _design(z: FloatArray) -> FloatArray:
        return np.stack([np.ones_like(z), z], axis=1)

    @property
    def noise_variance(self) -> float:
        """Variance of the log-latency of one more label around the line, if it is no outlier."""
        return self._fit[3] + (float(np.median(self.label_variance)) if len(self.y) else 0.0)

    def predict(self, z: FloatArray) -> Prediction:
        """Predict latencies in ms at scores `z` (m,); the means rise with z, however uncertain the slope is."""
        line, covariance, _, _ = self._fit
        design = self._design(z)
        return self._in_ms(design @ _cut(line, covariance), _quadratic(design, covariance))

    def leave_one_out(self) -> Prediction:
        """Predict each label from all the others, in closed form: the weights and s^2 stay those of all labels."""
        line, covariance, precision, _ = self._fit
        design = self._design(self.z)
        means, variances = np.empty_like(self.y), np.empty_like(self.y)
        inverse = np.linalg.inv(covariance)
        for i, (row, y) in enumerate(zip(design, self.y, strict=True)):
            without = np.linalg.inv(inverse - precision[i] * np.outer(row, row))
            rest = without @ (inverse @ line - precision[i] * y * row)
            means[i], variances[i] = row @ _cut(rest, without), row @ without @ row
        return self._in_ms(means, variances)

    def _in_ms(self, mean: FloatArray, variance: FloatArray) -> Prediction:
        return in_ms(mean, variance + self.noise_variance, FREEDOM, shift=self.noise_variance / 2)


def _cut(line: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the mean of (a, b) given b > 0."""
    deviation = np.sqrt(covariance[1, 1])
    # The hazard function is computed by logarithms because its parts underflow far from 0.
    below = line[1] / deviation
    hazard = np.exp(-(below**2) / 2 - special.log_ndtr(below)) / math.sqrt(2 * math.pi)
    return np.asarray(line + covariance[:, 1] / deviation * hazard)


def _quadratic(design: FloatArray, covariance: FloatArray) -> FloatArray:
    return np.asarray(((design @ covariance) * design).sum(axis=1))
