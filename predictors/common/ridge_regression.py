"""Ridge regression whose penalty is chosen by leaving one out, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latlab.predictors.base import FloatArray

__all__ = ["RidgeFit", "label_weights", "ridge", "tail_weights"]

PENALTIES = np.logspace(-4, 4, 33)
"""Penalties that are tried, in units of the mean squared row of the design."""
LABEL_NOISE = 0.03
"""Error of a label's log-latency in addition to its standard error."""

FREEDOM = 4.0
"""Degrees of freedom of the t distribution of errors, whose tails are the outliers."""
ROUNDS = 3
"""Number of fits, each but the first with the weights that the residuals of the one before it give."""


@dataclass(frozen=True)
class RidgeFit:
    """A fitted function y = intercept + x coefficients. The intercept is not penalised."""

    intercept: float
    coefficients: FloatArray

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(self.intercept + x @ self.coefficients)


def label_weights(label_variance: FloatArray) -> FloatArray:
    """Return the weights, between 0 and 1, of labels with these variances of log-latency, of the same shape."""
    return np.asarray(1 / (1 + label_variance / LABEL_NOISE**2))


def tail_weights(residual: FloatArray) -> FloatArray:
    """Return weights (n,) that discount outliers among residuals (n,), as t_4 errors of their median size would."""
    size = max(1.4826 * float(np.median(np.abs(residual))), LABEL_NOISE) if len(residual) else 1.0
    return np.asarray((FREEDOM + 1) / (FREEDOM + (residual / size) ** 2))


def ridge(x: FloatArray, y: FloatArray, weight: FloatArray | None = None, rounds: int = ROUNDS) -> RidgeFit:
    """Fit y (n,) to x (n, d) with the penalty of `PENALTIES` that has the least weighted leave-one-out error.

    With fewer than three labels no penalty can be chosen, and the coefficients are 0. Leave-one-out residuals are
    r_i / (1 - h_i), h_i being the leverage (Hastie et al., The Elements of Statistical Learning, 2nd edition, section
    7.10). Labels that the others contradict count less: after the first round residuals weight them (`tail_weights`).
    """
    n, d = x.shape
    weight = np.ones(n) if weight is None else weight
    if n < 3:
        return RidgeFit(float(y.mean()) if n else 0.0, np.zeros(d))
    tail = np.ones(n)
    for _ in range(rounds):
        fit, residual = _best(x, y, weight * tail)
        tail = tail_weights(residual)
    return fit


def _best(x: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[RidgeFit, FloatArray]:
    """Return the fit with the best penalty, and the residual of each label when it is left out."""
    share = weight / weight.sum()
    centre, level, root = share @ x, float(share @ y), np.sqrt(weight)
    left, singular, right = _thin_svd((x - centre) * root[:, None])
    target = (y - level) * root
    projected = left.T @ target
    scale = float((singular**2).sum()) / len(y) or 1.0
    square = left**2
    best, chosen, residual = np.inf, np.zeros_like(singular), target
    for penalty in PENALTIES * scale:
        shrink = singular**2 / (singular**2 + penalty)
        leverage = share + square @ shrink
        left_out = (target - left @ (shrink * projected)) / np.maximum(1 - leverage, 1e-6)
        error = float(left_out @ left_out)
        if error < best:
            best, chosen, residual = error, singular / (singular**2 + penalty), left_out
    coefficients = np.asarray(right.T @ (chosen * projected))
    return RidgeFit(level - float(centre @ coefficients), coefficients), residual / root


def _thin_svd(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return left vectors, singular values and right vectors of x, without those whose singular value is 0.

    They come from the smaller Gram matrix, which is several times quicker than a decomposition of x and exact enough
    for penalties far above rounding errors.
    """
    tall = len(x) > x.shape[1]
    square, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
    kept = square > 1e-12 * max(float(square[-1]), np.finfo(float).tiny)
    singular, vectors = np.sqrt(square[kept]), vectors[:, kept]
    if tall:
        return x @ vectors / singular, singular, vectors.T
    return vectors, singular, (vectors / singular).T @ x
