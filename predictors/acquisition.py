"""The choice of the architectures to measure next: those whose labels lower the variance over the space most.

The method is greedy A-optimal (Bayesian) design. With posterior covariance C and label noise s^2, a label of x lowers
the variance at every r by C(r, x)^2 / (C(x, x) + s^2). The candidate with the largest mean reduction over a reference
sample of the space is chosen, C is updated as if it were measured, and the next one is chosen. The variance is counted
about the mean over the reference sample, because a common factor on all latencies changes no order and any label
determines it. Latencies have an influence only through the predictor's hyper-parameters, so architectures can be chosen
while earlier ones are still being measured.

Source: Chaloner and Verdinelli, Bayesian Experimental Design: A Review (1995), section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlab.predictors.base import Archs, FloatArray, IntArray, Predictor
from latlab.search_spaces import Architecture

__all__ = ["CANDIDATES", "FROM_PRIOR", "REFERENCE", "choose"]

CANDIDATES = 1500
"""Random architectures among which the next one is chosen. More gain little, and the cost grows with the square."""
REFERENCE = 600
"""Random architectures over which the posterior variance is averaged. They represent the space."""
FROM_PRIOR = 5
"""Architectures that are chosen by the prior alone: fewer labels do not show which kind of device it is. Each later one
is chosen after a fit to all labels there are."""

JITTER = 1e-6
"""Share of the mean variance that is added to the diagonal, so that the covariance has a Cholesky factor."""


def choose(
    predictor: Predictor,
    candidates: Archs,
    reference: Archs,
    n: int,
    pending: Archs | Sequence[Architecture] = (),
) -> list[int]:
    """Return the `n` candidates to measure next, best first, as positions in `candidates`.

    Args:
        predictor: a predictor fitted to the labels so far. Without labels its prior decides, and the choice is diverse.
        candidates: the architectures to choose from, none of them measured or pending.
        reference: a sample of the space, over which the posterior variance is averaged.
        pending: architectures that were chosen earlier and have no label yet; they count as measured.

    Raises:
        ValueError: there are fewer than `n` candidates.
    """
    if n > len(candidates):
        raise ValueError(f"{n} of {len(candidates)} candidates were asked for")
    space = predictor.space
    waiting = len(pending)
    pool = np.concatenate([space.genes(pending), space.genes(candidates)])
    noise = predictor.noise_variance
    root = _root(predictor, pool, space.genes(reference))
    open_, root = root[: len(pool)], root[len(pool) :]
    root = root - root.mean(axis=0)
    spread = root.T @ root / len(root)
    closed = np.zeros(len(pool), dtype=bool)
    closed[:waiting] = True
    chosen: list[int] = []
    for step in range(waiting + n):
        own = np.einsum("nk,nk->n", open_, open_)
        if step < waiting:
            best = step
        else:
            gain = np.einsum("nk,nk->n", open_ @ spread, open_) / (own + noise)
            best = int(np.argmax(np.where(closed, -np.inf, gain)))
            chosen.append(best - waiting)
            closed[best] = True
        if step == waiting + n - 1:
            break  # nothing is chosen after it
        # With f the row of the label, the covariance becomes F (I - f f' / (f'f + s^2)) F'. A root of the matrix in
        # brackets is I - c f f'.
        row, squared = open_[best].copy(), float(own[best])
        if squared > 0:
            c = (1 - np.sqrt(noise / (squared + noise))) / squared
            open_ = open_ - np.outer(open_ @ row, c * row)
            shrunk = np.eye(len(row)) - c * np.outer(row, row)
            spread = shrunk @ spread @ shrunk
    return chosen


def _root(predictor: Predictor, pool: IntArray, reference: IntArray) -> FloatArray:
    """Return F such that F F' is the covariance of the pool and the reference sample, in this order."""
    both = np.concatenate([pool, reference])
    root = predictor.covariance_root(both)
    if root is not None:
        return root
    covariance = predictor.covariance(both, both)
    covariance[np.diag_indices(len(both))] += JITTER * np.trace(covariance) / len(both)
    return np.asarray(np.linalg.cholesky(covariance))
