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
left-one-out residuals are of what they should be; that of the costs by no less than one.
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
class _Fit:
    z: FloatArray
    covariance: FloatArray
    evidence: float
    left_out: FloatArray
    """Residual of each label from all others, in logarithms, shape (n,)."""
    left_out_variance: FloatArray


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
        tries = product(KERNEL_NOISES, SPREADS) if works else [(KERNEL_NOISES[-2], 1.0)]
        fits = [(self._fit(noise, spread), noise, spread) for noise, spread in tries]
        self._best, self.kernel_noise, self._spread = max(fits, key=lambda one: one[0].evidence)
        squares = np.minimum(self._best.left_out**2 / self._best.left_out_variance, 16.0)
        self.calibration = float((squares.sum() + CALIBRATED_BY) / (len(squares) + CALIBRATED_BY))

    def _fit(self, kernel_noise: float, spread: float) -> _Fit:
        mean, covariance = _with_context(*prior(self.columns, spread))
        if not self._works:
            return _Fit(mean, covariance, 0.0, np.zeros(0), np.ones(0))
        z = mean.copy()
        for step in range(STEPS):
            shares, log_total, noise = self._linearised(z, kernel_noise)
            target = self._y - log_total + shares @ (z - mean)
            weighted = shares @ covariance
            factor = cho_factor(weighted @ shares.T + np.diag(noise), lower=True)
            change = mean + weighted.T @ cho_solve(factor, target) - z
            z = z + np.clip(change, -LARGEST_STEP, LARGEST_STEP) * (0.7 if step < 3 else 1.0)
            if np.abs(change).max() < 1e-3:
                break
        shares, log_total, noise = self._linearised(z, kernel_noise)
        target = self._y - log_total + shares @ (z - mean)
        weighted = shares @ covariance
        factor = cho_factor(weighted @ shares.T + np.diag(noise), lower=True)
        inverse = cho_solve(factor, np.eye(len(target)))
        alpha = inverse @ target
        log_determinant = 2 * float(np.log(np.diag(factor[0])).sum())
        evidence = -0.5 * (float(target @ alpha) + log_determinant)
        posterior = covariance - weighted.T @ inverse @ weighted
        variance = 1 / np.diag(inverse)
        return _Fit(z, posterior, evidence, alpha * variance, variance)

    def _linearised(self, z: FloatArray, kernel_noise: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return derivatives (n, 1 + d), log-latencies (n,), and variances of these (n,) at c and log-costs z."""
        costs = np.exp(z[1:])
        total = np.maximum(self._totals @ costs, 1e-12)
        shares = self._totals * costs / total[:, None]
        alone = np.array([np.square(rows @ costs).sum() for rows in self._rows]) / total**2
        noise = GRAPH_NOISE**2 + kernel_noise**2 * alone + TRANSFER**2 * (1 - alone) ** 2 + self._relative**2
        return np.column_stack([1 - alone, shares]), np.log(total) + z[0] * (1 - alone), noise

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
        z, covariance = self._extended(columns)
        place = {column: at for at, column in enumerate(columns)}
        return [self._predict(work, matrix(work, place), columns, z, covariance) for work in works]

    def _extended(self, columns: Sequence[Column]) -> tuple[FloatArray, FloatArray]:
        """Return mean and covariance of c and log-costs, of those too that no label has: the prior given the others."""
        known = 1 + len(self.columns)
        if 1 + len(columns) == known:
            return self._best.z, self._best.covariance
        mean, covariance = prior(columns, self._spread)
        if self._spread < 1:  # that the kinds which were measured are alike does not make another one like them
            new = np.array([kind not in self.seen for kind, _ in columns])
            covariance = np.where(np.outer(new, new), prior(columns)[1], covariance)
        mean, covariance = _with_context(mean, covariance)
        gain = np.linalg.solve(covariance[:known, :known], covariance[:known]).T
        z = mean + gain @ (self._best.z - mean[:known])
        shrunk = covariance - gain @ (covariance[:known, :known] - self._best.covariance) @ gain.T
        return z, shrunk

    def _predict(
        self, work: Work, rows: FloatArray, columns: Sequence[Column], z: FloatArray, covariance: FloatArray
    ) -> GraphPrediction:
        each = rows * np.exp(z[1:])
        total = float(each.sum())
        share = each.sum(axis=0) / total
        alone = float(np.square(each.sum(axis=1) / total).sum())
        slope = np.array([1 - alone, *share])
        fit = float(slope @ covariance @ slope)
        # Labels that are alike agree better than expected: cells of one space do. That says nothing of other costs.
        variance = max(self.calibration, 1.0) * fit
        variance += self.calibration * (GRAPH_NOISE**2 + self.kernel_noise**2 * alone)
        variance += TRANSFER**2 * (1 - alone) ** 2
        total *= float(np.exp(z[0] * (1 - alone)))
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


def _with_context(mean: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the prior of c and of the log-costs."""
    whole = np.zeros((len(mean) + 1, len(mean) + 1))
    whole[0, 0], whole[1:, 1:] = CONTEXT_SPREAD**2, covariance
    return np.array([CONTEXT, *mean]), whole
