"""The posterior of a device's costs, given latencies of whatever graphs were measured on it.

    T = sum_j X_j exp(z_j),   log y = log T + c d + e,   z ~ N(m, S),   d = 1 - sum_g share_g^2,
    e ~ N(0, s0^2 + s1^2 sum_g share_g^2 + s2^2 d^2 + (stderr / y)^2)

with X the quantities of a graph (`work.QUANTITIES`, by kind), z the log-costs (`prior.prior`), and share_g the share of
distinct kernel g in T: each distinct kernel deviates from the linear model by about s1 for itself, so a graph of many
kernels averages that away, and one of a single kernel does not. d is how many different kernels a graph has (Gini and
Simpson's diversity): 0 for one, almost 1 for many. In such a graph each finds caches that others have filled, and
weights that have left them since the last inference; c is what that costs, s2 what it differs by between graphs.

Costs stay positive by construction. The posterior is the Laplace approximation: Gauss-Newton steps, whose Jacobian is
the shares X_j exp(z_j) / T (Rasmussen and Williams, 2006, section 3.4, and equations 5.10-5.12 for leaving one out). s1
and the spread of the prior maximise the evidence over a small grid. The variance is multiplied by what the squared
left-one-out residuals are of what they should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.linalg import cho_factor, cho_solve

from latlab.predictors.base import WIDEST, FloatArray, Prediction
from latlab.predictors.graph.prior import prior
from latlab.predictors.graph.similarity import similarity
from latlab.predictors.graph.work import Column, Work, columns_of, matrix

__all__ = ["CostPosterior", "GraphPrediction", "interval_of_label"]

GRAPH_NOISE = 0.1
"""s0: what the same costs differ by from label to label."""
CONTEXT, CONTEXT_SPREAD = 0.35, 0.08
"""Mean and standard deviation of c before anything is measured. Operators that are measured alone do not show it, so
the mean comes from half of the models of benchmarks/RESULTS.md, section 33; measured networks and models do."""
TRANSFER = 0.15
"""s2: what networks differ by in that, from the same models."""
KERNEL_NOISES = (0.1, 0.2, 0.3, 0.45)
USUAL_NOISE, NOISE_SPREAD = 0.3, 0.5
"""s1 before anything is measured, and the standard deviation of its logarithm."""
SPREADS = (0.6, 1.0, 1.6)
STEPS = 25
"""Most Gauss-Newton steps; they usually converge in ten."""
LARGEST_STEP = 1.0
"""Largest change of a log-cost in one step."""
CALIBRATED_BY = 8
"""The calibration counts as so many residuals that are as large as they should be."""
FREEDOM = 6
"""Degrees of freedom of the interval's Student-t: costs are not exactly linear in the quantities."""
HALF_WIDTH = float(special.stdtrit(FREEDOM, 0.95))


@dataclass(frozen=True)
class GraphPrediction:
    """The predicted latency of one graph, in ms."""

    latency_ms: float
    lower_ms: float
    upper_ms: float
    """The central 90 % interval of a new measurement."""
    shares: Mapping[str, float]
    """The share of each kind of kernel, largest first."""
    unseen: tuple[str, ...]
    """Operators of kinds that no measured graph had, by their names in the file."""


def interval_of_label(latency: float, stderr: float) -> tuple[float, float]:
    """Return the central 90 % interval of a new measurement of a graph that was measured itself.

    Args:
        latency: the mean of its labels.
        stderr: the standard error of that mean; 0 where it is not known.
    """
    width = float(np.exp(HALF_WIDTH * np.sqrt(min(GRAPH_NOISE**2 + (stderr / latency) ** 2, WIDEST))))
    return latency / width, latency * width


@dataclass(frozen=True)
class _Linear:
    """The model of n log-latencies around given c and log-costs."""

    slopes: FloatArray
    """Derivatives by c and log-costs, shape (n, 1 + d)."""
    log_total: FloatArray
    noise: FloatArray
    """Covariance of deviations, shape (n, n)."""
    parts: FloatArray
    """Shares of distinct kernels, shape (n, kernels)."""


@dataclass(frozen=True)
class _Fit:
    z: FloatArray
    slopes: FloatArray
    alpha: FloatArray
    """The inverse of the labels' covariance times their residuals from the prior, shape (n,)."""
    inverse: FloatArray
    parts: FloatArray
    evidence: float

    @property
    def left_out_variance(self) -> FloatArray:
        """Variance of each label given all others, shape (n,)."""
        return np.asarray(1 / np.diag(self.inverse), np.float64)

    @property
    def left_out(self) -> FloatArray:
        """Residual of each label from all others, in logarithms, shape (n,)."""
        return self.alpha * self.left_out_variance


class CostPosterior:
    """The costs of one device, from the latencies of any graphs.

    Args:
        works: n measured graphs; n may be 0, which leaves the prior, whose level is unknown within a factor of ten.
        latency_ms: their latencies in ms, shape (n,).
        stderr_ms: standard errors of these in ms, 0 or NaN where unknown.

    Raises:
        ValueError: lengths differ, a latency is not positive and finite, or a graph has no kernel.
    """

    def __init__(self, works: Sequence[Work], latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        latency = np.asarray(latency_ms, np.float64)
        stderr = np.zeros_like(latency) if stderr_ms is None else np.nan_to_num(np.asarray(stderr_ms, np.float64))
        if latency.shape != (len(works),) or stderr.shape != latency.shape:
            raise ValueError(f"{len(works)} graphs, latencies of shape {latency.shape}, errors of {stderr.shape}")
        if not (np.isfinite(latency) & (latency > 0)).all():
            raise ValueError("latencies are positive and finite")
        if not all(work.kernels for work in works):
            raise ValueError("a measured graph has no kernel")
        self.labels = len(works)
        self.seen = frozenset(kind for work in works for kind in work.kinds)
        self._works, self._y, self._relative = list(works), np.log(latency), stderr / np.maximum(latency, 1e-12)
        self.columns = columns_of(works)
        self._place = {column: at for at, column in enumerate(self.columns)}
        self._rows = [matrix(work, self._place) for work in works]
        self._totals = np.array([rows.sum(axis=0) for rows in self._rows]).reshape(len(works), len(self.columns))
        self._kernels = list(dict.fromkeys(kernel for work in works for kernel in work.kernels))
        place = {kernel: at for at, kernel in enumerate(self._kernels)}
        self._places = [[place[kernel] for kernel in work.kernels] for work in works]
        self._alike = similarity(self._kernels, self._kernels)
        tries = product(KERNEL_NOISES, SPREADS) if works else [(KERNEL_NOISES[-2], 1.0)]
        fits = [(self._fit(noise, spread), noise, spread) for noise, spread in tries]
        self._best, self.kernel_noise, self._spread = max(fits, key=lambda one: one[0].evidence)
        squares = np.minimum(self._best.left_out**2 / self._best.left_out_variance, 16.0)
        self.calibration = float((squares.sum() + CALIBRATED_BY) / (len(squares) + CALIBRATED_BY))

    def _fit(self, kernel_noise: float, spread: float) -> _Fit:
        mean, covariance = _with_context(*prior(self.columns, spread))
        if not self._works:
            nothing = np.zeros(0)
            return _Fit(mean, np.zeros((0, len(mean))), nothing, np.zeros((0, 0)), np.zeros((0, 0)), 0.0)
        z = mean.copy()
        for step in range(STEPS):
            model = self._linearised(z, kernel_noise)
            weighted = model.slopes @ covariance
            factor = cho_factor(weighted @ model.slopes.T + model.noise, lower=True)
            change = mean + weighted.T @ cho_solve(factor, self._y - model.log_total + model.slopes @ (z - mean)) - z
            z = z + np.clip(change, -LARGEST_STEP, LARGEST_STEP) * (0.7 if step < 3 else 1.0)
            if np.abs(change).max() < 1e-3:
                break
        model = self._linearised(z, kernel_noise)
        target = self._y - model.log_total + model.slopes @ (z - mean)
        factor = cho_factor(model.slopes @ covariance @ model.slopes.T + model.noise, lower=True)
        inverse = cho_solve(factor, np.eye(len(target)))
        alpha = inverse @ target
        log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
        evidence = -0.5 * (float(target @ alpha) + log_determinant) + _log_prior(kernel_noise)
        return _Fit(z, model.slopes, alpha, inverse, model.parts, evidence)

    def _linearised(self, z: FloatArray, kernel_noise: float) -> _Linear:
        """Return the model of log-latencies around c and log-costs z."""
        costs = np.exp(z[1:])
        total = np.maximum(self._totals @ costs, 1e-12)
        shares = self._totals * costs / total[:, None]
        parts = np.zeros((len(self._works), len(self._kernels)))
        for row, places, rows, of in zip(parts, self._places, self._rows, total, strict=True):
            np.add.at(row, places, rows @ costs / of)  # a file may list a kernel twice
        many = 1 - np.square(parts).sum(axis=1)
        own = GRAPH_NOISE**2 + TRANSFER**2 * many**2 + self._relative**2
        noise = kernel_noise**2 * parts @ self._alike @ parts.T + np.diag(own)
        return _Linear(np.column_stack([many, shares]), np.log(total) + z[0] * many, noise, parts)

    def measured(self) -> tuple[list[Work], FloatArray]:
        """Return the measured graphs, and their latencies in ms, shape (n,)."""
        return list(self._works), np.exp(self._y)

    def predict(self, works: Sequence[Work]) -> list[GraphPrediction]:
        """Return the predicted latencies of graphs.

        Raises:
            ValueError: a graph has no kernel.
        """
        if not all(work.kernels for work in works):
            raise ValueError("a graph without kernels takes no time that could be predicted")
        columns = list(dict.fromkeys((*self.columns, *columns_of(works))))
        mean, covariance = self._prior(columns)
        known = 1 + len(self.columns)
        with_labels = covariance[:, :known] @ self._best.slopes.T  # of costs and labels, before these are known
        z = mean.copy()
        z[:known] = self._best.z
        z[known:] += with_labels[known:] @ self._best.alpha
        place = {column: at for at, column in enumerate(columns)}
        kernels = list(dict.fromkeys(kernel for work in works for kernel in work.kernels))
        of_kernels = self.kernel_noise**2 * similarity(kernels, self._kernels) @ self._best.parts.T
        at = {kernel: number for number, kernel in enumerate(kernels)}
        found = []
        for work in works:
            rows = matrix(work, place)
            its = of_kernels[[at[kernel] for kernel in work.kernels]]
            found.append(self._predict(work, rows, columns, z, covariance, with_labels, its))
        return found

    def _prior(self, columns: Sequence[Column]) -> tuple[FloatArray, FloatArray]:
        """Return the prior's mean and covariance of c and of log-costs, of those too that no label has."""
        mean, covariance = prior(columns, self._spread)
        if self._spread < 1:  # that the kinds which were measured are alike does not make another one like them
            new = np.array([kind not in self.seen for kind, _ in columns])
            covariance = np.where(np.outer(new, new), prior(columns)[1], covariance)
        return _with_context(mean, covariance)

    def _predict(
        self,
        work: Work,
        rows: FloatArray,
        columns: Sequence[Column],
        z: FloatArray,
        covariance: FloatArray,
        with_labels: FloatArray,
        of_kernels: FloatArray,
    ) -> GraphPrediction:
        each = rows * np.exp(z[1:])
        total = float(each.sum())
        share, parts = each.sum(axis=0) / total, each.sum(axis=1) / total
        many = 1 - float(np.square(parts).sum())
        slope = np.array([many, *share])
        deviation = parts @ of_kernels
        gain = slope @ with_labels + deviation
        own = self.kernel_noise**2 * float(parts @ similarity(work.kernels, work.kernels) @ parts)
        fit = float(slope @ covariance @ slope) + own - float(gain @ self._best.inverse @ gain)
        variance = self.calibration * (max(fit, 0.0) + GRAPH_NOISE**2) + TRANSFER**2 * many**2
        total *= float(np.exp(z[0] * many + deviation @ self._best.alpha))
        width = float(np.exp(HALF_WIDTH * np.sqrt(min(variance, WIDEST))))
        shares: dict[str, float] = {}
        for (kind, _), part in zip(columns, share, strict=True):
            shares[kind] = shares.get(kind, 0.0) + float(part)
        ranked = {kind: part for kind, part in sorted(shares.items(), key=lambda item: -item[1]) if part > 0}
        unseen = {kernel.operator for kernel in work.kernels if kernel.kind not in self.seen}
        return GraphPrediction(total, total / width, total * width, ranked, tuple(sorted(unseen)))

    def leave_one_out(self) -> Prediction:
        """Return what each label is predicted to be from the others, each field of shape (n,)."""
        variance = np.minimum(self.calibration * self._best.left_out_variance, WIDEST)
        latency = np.exp(self._y - self._best.left_out)
        width = np.exp(HALF_WIDTH * np.sqrt(variance))
        return Prediction(latency, latency * np.sqrt(np.expm1(variance)), latency / width, latency * width)


def _log_prior(kernel_noise: float) -> float:
    """Return the logarithm of what is believed of s1 before anything is measured, but for a constant."""
    return -0.5 * float(np.log(kernel_noise / USUAL_NOISE) / NOISE_SPREAD) ** 2


def _with_context(mean: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the prior of c and of the log-costs."""
    whole = np.zeros((len(mean) + 1, len(mean) + 1))
    whole[0, 0], whole[1:, 1:] = CONTEXT_SPREAD**2, covariance
    return np.array([CONTEXT, *mean]), whole
