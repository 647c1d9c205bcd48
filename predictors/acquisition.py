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

from latlab.predictors.base import Archs, Predictor
from latlab.search_spaces import Architecture

__all__ = ["CANDIDATES", "FROM_PRIOR", "REFERENCE", "choose"]

CANDIDATES = 1500
"""Random architectures among which the next one is chosen. More gain little, and the cost grows with the square."""
REFERENCE = 600
"""Random architectures over which the posterior variance is averaged. They represent the space."""
FROM_PRIOR = 5
"""Architectures that are chosen by the prior alone: fewer labels do not show which kind of device it is. Each later one
is chosen after a fit to all labels there are."""


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
    within = predictor.covariance(pool, pool)
    across = predictor.covariance(reference, pool)
    across -= across.mean(axis=0)
    closed = np.zeros(len(pool), dtype=bool)
    chosen: list[int] = []
    for step in range(waiting + n):
        if step < waiting:
            best = step
        else:
            gain = (across**2).mean(axis=0) / (np.diag(within) + noise)
            best = int(np.argmax(np.where(closed | (np.arange(len(pool)) < waiting), -np.inf, gain)))
            chosen.append(best - waiting)
        closed[best] = True
        column, scale = within[:, best].copy(), within[best, best] + noise
        across -= np.outer(across[:, best], column) / scale
        within -= np.outer(column, column) / scale
    return chosen
