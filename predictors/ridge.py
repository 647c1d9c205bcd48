"""Bayesian linear regression of log-latency on analytic cost features, hyper-parameters by evidence.

    log t = w0 + sum_g Phi_g w_g + e,   w_g ~ N(0, s_g^2 I),   e_i ~ N(0, sigma^2 + (stderr_i / t_i)^2)

with the feature groups g of `cost_features.CostFeatures`. Everything is closed form in the n x n covariance of the
labels (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 2.23-2.24; leave-one-out
5.10-5.12). With more labels than features the same comes from the d x d precision of the weights (2.11, and A.9 for the
inverse), in O(n d^2) instead of O(n^3). The scales s_g and sigma maximise the evidence (5.8) times a broad log-normal
prior, without which three labels would fit themselves perfectly. Labels that the others contradict count less: e_i has
Student-t tails, as a scale mixture whose weights come from the left-one-out residuals and enter the next round.
Intervals are Student-t with n - tr(H) degrees of freedom, H being the smoother matrix, but at most with those of e_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve, cholesky, solve_triangular

from latlab.predictors.base import Archs, FloatArray, Prediction, Predictor
from latlab.predictors.common import serialization as files
from latlab.predictors.common.blas_threads import one_thread
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


@dataclass(frozen=True, slots=True)
class _Solved:
    """The labels' covariance C = F F' + N solved for the labels y, F being the scaled features and N the noise."""

    alpha: FloatArray
    """C^-1 y, shape (n,)."""
    precision: FloatArray
    """Diagonal of C^-1, shape (n,)."""
    log_determinant: float
    """log |C|."""
    gradient: list[float]
    """Derivative of (y' C^-1 y + log |C|) / 2 by the logarithm of each group's scale."""
    factor: FloatArray
    """Lower Cholesky factor of C (n x n), or of I + F' N^-1 F where that is smaller."""


def _by_labels(groups: Sequence[FloatArray]) -> bool:
    """Return whether there are no more labels than features, so that C is the smaller matrix."""
    return bool(len(groups[0]) <= sum(group.shape[1] for group in groups))


def _scaled(groups: Sequence[FloatArray], log_scales: FloatArray) -> FloatArray:
    """Return features times the prior standard deviations of their weights, then that of w0: shape (n, d + 1)."""
    columns = [np.exp(log) * group for log, group in zip(log_scales, groups, strict=False)]
    return np.concatenate([*columns, np.full((len(groups[0]), 1), np.sqrt(INTERCEPT_VARIANCE))], axis=1)


def _solve(
    groups: Sequence[FloatArray],
    kernels: Sequence[FloatArray] | None,
    log_scales: FloatArray,
    noise: FloatArray,
    y: FloatArray,
) -> _Solved:
    """Solve for the labels y, shape (n,), with noise variances of the same shape.

    Args:
        groups: features of each group, shape (n, columns).
        kernels: products of these with their transposes, to solve in the space of labels; None for that of features.
    """
    if kernels is not None:
        parts = [np.exp(2 * log) * kernel for log, kernel in zip(log_scales, kernels, strict=False)]
        covariance = np.sum(parts, axis=0) + INTERCEPT_VARIANCE
        covariance[np.diag_indices(len(y))] += noise
        factor = cholesky(covariance, lower=True)
        alpha = cho_solve((factor, True), y)
        inverse = cho_solve((factor, True), np.eye(len(y)))
        outer = inverse - np.outer(alpha, alpha)
        gradient = [float(np.sum(outer * part)) for part in parts]
        return _Solved(alpha, np.diag(inverse), 2 * float(np.log(np.diag(factor)).sum()), gradient, factor)
    scaled = _scaled(groups, log_scales)
    weighted = scaled / noise[:, None]
    inner = weighted.T @ scaled
    inner[np.diag_indices(len(inner))] += 1
    factor = cholesky(inner, lower=True)
    inverse = cho_solve((factor, True), np.eye(len(inner)))
    alpha = (y - scaled @ (inverse @ (weighted.T @ y))) / noise
    precision = 1 / noise - np.einsum("nd,nd->n", weighted @ inverse, weighted)
    determinant = 2 * float(np.log(np.diag(factor)).sum()) + float(np.log(noise).sum())
    # F' C^-1 F = I - (I + F' N^-1 F)^-1.
    by_column = 1 - np.diag(inverse) - (scaled.T @ alpha) ** 2
    ends = np.cumsum([group.shape[1] for group in groups])
    gradient = [float(part.sum()) for part in np.split(by_column, ends)[:-1]]
    return _Solved(alpha, precision, determinant, gradient, factor)


class Ridge(Predictor):
    """A predictor in closed form that needs no source devices; it also plans the measurements of other predictors."""

    name = "ridge"
    title = "Bayesian ridge regression on analytic cost features; no source devices"

    _solved: _Solved

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._features: CostFeatures = cost_features(space)
        self._groups = [g for g in CostFeatures.GROUPS if self._features.columns(g)]
        self.adapt([], [])

    def adapt(self, support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        self._y, self._label_variance = log_labels(support, latency_ms, stderr_ms)
        self._support = self.space.architectures(support)
        self._tail = np.ones_like(self._y)
        with one_thread():
            for number in range(ROUNDS if len(self._support) >= ROBUST_FROM else 1):
                if number:  # standard deviations between a label and its prediction from the other labels
                    surprise = self._solved.alpha / np.sqrt(self._solved.precision)
                    self._tail = (TAIL_FREEDOM + 1) / (TAIL_FREEDOM + surprise**2)
                self._log_scales = self._fit()
                self._condition()

    def _groups_of(self, archs: Archs) -> list[FloatArray]:
        features = self._features(archs)
        return [features[g] for g in self._groups]

    def _scaled(self, archs: Archs) -> FloatArray:
        """Return features times the prior standard deviations of their weights, then that of w0: shape (n, d + 1)."""
        return _scaled(self._groups_of(archs), self._log_scales)

    def _fit(self) -> FloatArray:
        """Return the logarithms of the s_g and of sigma, in this order, that maximise evidence times prior."""
        centre = np.log([*(PRIOR_SCALE[g] for g in self._groups), PRIOR_NOISE])
        if len(self._support) < 2:
            return centre
        from scipy import optimize

        groups, y = self._groups_of(self._support), self._y - self._y.mean()
        kernels = [group @ group.T for group in groups] if _by_labels(groups) else None

        def loss(theta: FloatArray) -> tuple[float, FloatArray]:
            noise = np.exp(2 * theta[-1]) / self._tail
            found = _solve(groups, kernels, theta, noise + self._label_variance, y)
            value = 0.5 * y @ found.alpha + 0.5 * found.log_determinant
            gradient = np.array([*found.gradient, noise @ (found.precision - found.alpha**2)])
            offset = (theta - centre) / PRIOR_WIDTH
            return float(value + 0.5 * offset @ offset), gradient + offset / PRIOR_WIDTH

        bounds = [(c - 5, c + 5) for c in centre]
        return np.asarray(optimize.minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds).x)

    def _condition(self) -> None:
        n = len(self._support)
        self._noise = float(np.exp(2 * self._log_scales[-1]))
        self._level = float(self._y.mean()) if n else 0.0
        if not n:
            self._freedom = MIN_FREEDOM
            return
        groups, noise = self._groups_of(self._support), self._noise / self._tail + self._label_variance
        kernels = [group @ group.T for group in groups] if _by_labels(groups) else None
        self._solved = _solve(groups, kernels, self._log_scales, noise, self._y - self._level)
        scaled = _scaled(groups, self._log_scales)
        self._weights = scaled.T @ self._solved.alpha
        # With F the features and L the Cholesky factor, the covariance of the labels' or the precision of the weights.
        self._explained = solve_triangular(self._solved.factor, scaled, lower=True) if kernels else None
        # tr(H) with H = K C^-1 = I - N C^-1, N the diagonal of the noise.
        used = n - float(self._solved.precision @ noise)
        self._freedom = float(np.clip(n - used, MIN_FREEDOM, TAIL_FREEDOM))

    @property
    def noise_variance(self) -> float:
        typical = float(np.median(self._label_variance)) if len(self._support) else 0.0
        return self._noise + typical

    def covariance(self, a: Archs, b: Archs) -> FloatArray:
        left, right = self._scaled(a), self._scaled(b)
        if not self._support:
            return np.asarray(left[:, :-1] @ right[:, :-1].T)
        if self._explained is not None:
            return np.asarray(left @ right.T - (left @ self._explained.T) @ (right @ self._explained.T).T)
        half = [solve_triangular(self._solved.factor, side.T, lower=True) for side in (left, right)]
        return np.asarray(half[0].T @ half[1])

    def predict(self, archs: Archs) -> Prediction:
        if not self._support:
            raise ValueError("nothing has been measured yet, so there is no scale: call adapt first")
        mean, variance = np.empty(len(archs)), np.empty(len(archs))
        for start in range(0, len(archs), 2000):
            scaled = self._scaled(archs[start : start + 2000])
            mean[start : start + 2000] = scaled @ self._weights + self._level
            if self._explained is not None:
                own = (scaled**2).sum(axis=1) - ((scaled @ self._explained.T) ** 2).sum(axis=1)
            else:
                own = (solve_triangular(self._solved.factor, scaled.T, lower=True) ** 2).sum(axis=0)
            variance[start : start + 2000] = np.maximum(own, 0) + self.noise_variance
        return in_ms(mean, variance, self._freedom)

    def leave_one_out(self) -> Prediction:
        if len(self._support) < 2:
            raise ValueError("leaving one out needs at least two measurements")
        precision = self._solved.precision
        return in_ms(self._y - self._solved.alpha / precision, 1 / precision, self._freedom)

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
