"""Bayesian linear regression of log-latency on analytic cost features, hyper-parameters by evidence.

    log t = w0 + sum_g Phi_g w_g + e,   w_g ~ N(0, s_g^2 I),   e_i ~ N(0, sigma^2 + (stderr_i / t_i)^2)

with the feature groups g of `cost_features.CostFeatures`. Everything is closed form in the n x n covariance of the
labels (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 2.23-2.24; leave-one-out
5.10-5.12). The scales s_g and sigma maximise the evidence (5.8) times a broad log-normal prior, without which three
labels would fit themselves perfectly. Labels that the others contradict count less: e_i has Student-t tails, as a
scale mixture whose weights come from the left-one-out residuals and enter the next round. Intervals are Student-t
with n - tr(H) degrees of freedom, H being the smoother matrix, but at most with those of e_i.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.linalg import cho_factor, cho_solve

from latlab.predictors.base import Archs, FloatArray, Prediction, Predictor
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_features import CostFeatures, cost_features
from latlab.predictors.common.log_latency import in_ms, log_labels
from latlab.search_spaces import SearchSpace

__all__ = ["Ridge"]

PRIOR_SCALE = {"totals": 0.4, "global": 0.2, "local": 0.1}
"""Prior medians of the scales s_g. The latencies of a space spread over some tens of percent up to a few times, mostly
with the totals; deviations per class and per resolution are smaller."""
PRIOR_NOISE = 0.03
"""Prior median of sigma, the noise that the standard errors leave out and the misfit of the model, as a fraction of the
latency."""
PRIOR_WIDTH = 1.0
"""Standard deviation of the log-normal priors: a factor of e either way is not unusual."""
INTERCEPT_VARIANCE = 100.0
"""Prior variance of w0. The level is unknown: a factor of e^10 either way."""
MIN_FREEDOM = 3.0
"""Smallest number of degrees of freedom of the intervals."""
TAIL_FREEDOM = 4.0
"""Degrees of freedom of the t distribution of a label's noise."""
ROUNDS = 3
"""Number of fits, each but the first with the weights that the residuals of the one before it give."""
ROBUST_FROM = 5
"""Number of labels from which outliers are discounted: fewer cannot show which of them is wrong."""


class Ridge(Predictor):
    """A predictor in closed form that needs no source devices; it also plans the measurements of other predictors."""

    name = "ridge"
    title = "Bayesian ridge regression on analytic cost features; no source devices"

    _alpha: FloatArray
    _inverse: FloatArray

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._features: CostFeatures = cost_features(space)
        self._groups = [g for g in CostFeatures.GROUPS if self._features.columns(g)]
        self.adapt([], [])

    def adapt(self, support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        self._y, self._label_variance = log_labels(support, latency_ms, stderr_ms)
        self._support = self.space.architectures(support)
        self._tail = np.ones_like(self._y)
        for number in range(ROUNDS if len(self._support) >= ROBUST_FROM else 1):
            if number:  # standard deviations between a label and its prediction from the other labels
                surprise = self._alpha / np.sqrt(np.diag(self._inverse))
                self._tail = (TAIL_FREEDOM + 1) / (TAIL_FREEDOM + surprise**2)
            self._log_scales = self._fit()
            self._condition()

    # The prior covariance of log-latencies is a weighted sum of one kernel per group.

    def _kernels(self, a: Archs, b: Archs) -> FloatArray:
        """Return the linear kernel of each group, without its scale: shape (groups, len(a), len(b))."""
        left, right = self._features(a), self._features(b)
        return np.stack([left[g] @ right[g].T for g in self._groups])

    def _fit(self) -> FloatArray:
        """Return the logarithms of the s_g and of sigma, in this order, that maximise evidence times prior."""
        centre = np.log([*(PRIOR_SCALE[g] for g in self._groups), PRIOR_NOISE])
        n = len(self._support)
        if n < 2:
            return centre
        kernels = self._kernels(self._support, self._support)
        y = self._y - self._y.mean()

        def loss(theta: FloatArray) -> tuple[float, FloatArray]:
            variances = np.exp(2 * theta)
            parts = variances[:-1, None, None] * kernels
            covariance = parts.sum(axis=0) + INTERCEPT_VARIANCE
            covariance[np.diag_indices(n)] += variances[-1] / self._tail + self._label_variance
            factor = cho_factor(covariance, lower=True)
            alpha = cho_solve(factor, y)
            inverse = cho_solve(factor, np.eye(n))
            value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum()
            outer = inverse - np.outer(alpha, alpha)
            gradient = np.array(
                [np.sum(outer * part) for part in parts] + [variances[-1] * np.sum(np.diag(outer) / self._tail)]
            )
            offset = (theta - centre) / PRIOR_WIDTH
            return float(value + 0.5 * offset @ offset), gradient + offset / PRIOR_WIDTH

        bounds = [(c - 5, c + 5) for c in centre]
        return np.asarray(optimize.minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds).x)

    def _prior(self, a: Archs, b: Archs) -> FloatArray:
        scales = np.exp(2 * self._log_scales[:-1])
        return np.asarray(np.tensordot(scales, self._kernels(a, b), axes=1))

    def _condition(self) -> None:
        n = len(self._support)
        self._noise = float(np.exp(2 * self._log_scales[-1]))
        self._level = float(self._y.mean()) if n else 0.0
        if not n:
            self._freedom = MIN_FREEDOM
            return
        covariance = self._prior(self._support, self._support) + INTERCEPT_VARIANCE
        covariance[np.diag_indices(n)] += self._noise / self._tail + self._label_variance
        self._factor = cho_factor(covariance, lower=True)
        self._inverse = cho_solve(self._factor, np.eye(n))
        self._alpha = cho_solve(self._factor, self._y - self._level)
        # tr(H) with H = K C^-1 = I - N C^-1, N the diagonal of the noise.
        used = n - float(np.diag(self._inverse) @ (self._noise / self._tail + self._label_variance))
        self._freedom = float(np.clip(n - used, MIN_FREEDOM, TAIL_FREEDOM))

    @property
    def noise_variance(self) -> float:
        typical = float(np.median(self._label_variance)) if len(self._support) else 0.0
        return self._noise + typical

    def covariance(self, a: Archs, b: Archs) -> FloatArray:
        prior = self._prior(a, b)
        if not self._support:
            return prior
        to_a = self._prior(self._support, a) + INTERCEPT_VARIANCE
        to_b = self._prior(self._support, b) + INTERCEPT_VARIANCE
        return np.asarray(prior + INTERCEPT_VARIANCE - to_a.T @ cho_solve(self._factor, to_b))

    def predict(self, archs: Archs) -> Prediction:
        if not self._support:
            raise ValueError("nothing has been measured yet, so there is no scale: call adapt first")
        mean, variance = np.empty(len(archs)), np.empty(len(archs))
        for start in range(0, len(archs), 2000):
            part = archs[start : start + 2000]
            features, support = self._features(part), self._features(self._support)
            scales = dict(zip(self._groups, np.exp(2 * self._log_scales[:-1]), strict=True))
            across = sum(scales[g] * (features[g] @ support[g].T) for g in self._groups) + INTERCEPT_VARIANCE
            own = sum(scales[g] * (features[g] ** 2).sum(axis=1) for g in self._groups) + INTERCEPT_VARIANCE
            mean[start : start + 2000] = across @ self._alpha + self._level
            explained = (across * cho_solve(self._factor, across.T).T).sum(axis=1)
            variance[start : start + 2000] = np.maximum(own - explained, 0) + self.noise_variance
        return in_ms(mean, variance, self._freedom)

    def leave_one_out(self) -> Prediction:
        if len(self._support) < 2:
            raise ValueError("leaving one out needs at least two measurements")
        precision = np.diag(self._inverse)
        return in_ms(self._y - self._alpha / precision, 1 / precision, self._freedom)

    def save(self, folder: str | Path) -> None:
        arrays = {
            "genes": self.space.genes(self._support),
            "log_latency": self._y,
            "label_variance": self._label_variance,
            "log_scales": self._log_scales,
            "tail": self._tail,
        }
        files.save(folder, self.name, self.space, arrays, {"groups": self._groups})

    @classmethod
    def load(cls, folder: str | Path, space: SearchSpace) -> Self:
        arrays, facts = files.load(folder, cls.name, space)
        with files.restoring(folder):
            predictor = cls(space)
            predictor._support = space.architectures(arrays["genes"])
            predictor._y, predictor._label_variance = arrays["log_latency"], arrays["label_variance"]
            predictor._log_scales, predictor._tail = arrays["log_scales"], arrays["tail"]
            if facts["groups"] != predictor._groups:
                raise ValueError(f"its groups of features are {facts['groups']}, not {predictor._groups}")
            if len(predictor._y) != len(predictor._support):
                raise ValueError(f"it has {len(predictor._y)} labels of {len(predictor._support)} architectures")
            predictor._condition()
        return predictor
