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
from dataclasses import dataclass

import numpy as np

from latlab.predictors.base import Archs, FloatArray, IntArray, Predictor
from latlab.search_spaces import Architecture

__all__ = ["CANDIDATES", "FROM_PRIOR", "REFERENCE", "Outlook", "choose", "outlook"]

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
    *,
    importance: FloatArray | None = None,
) -> list[int]:
    """Return the `n` candidates to measure next, best first, as positions in `candidates`.

    Args:
        predictor: a predictor fitted to the labels so far. Without labels its prior decides, and the choice is diverse.
        candidates: the architectures to choose from, none of them measured or pending.
        reference: a sample of the space, over which the posterior variance is averaged.
        pending: architectures that were chosen earlier and have no label yet; they count as measured.
        importance: weights of the reference sample in that average, shape (len(reference),); default: all equal.

    Raises:
        ValueError: there are fewer than `n` candidates.
    """
    if n > len(candidates):
        raise ValueError(f"{n} of {len(candidates)} candidates were asked for")
    design = _Design(predictor, candidates, reference, pending, importance)
    return [design.take() for _ in range(n)]


@dataclass(frozen=True)
class Outlook:
    """The posterior over the reference sample now, and what further labels will do to it.

    With F = `reference`, of shape (r, k), the covariance of its log-latencies is F F'. With the labels it will be
    F S S' F', with S = `shrunk` of shape (k, k).
    """

    reference: FloatArray
    shrunk: FloatArray


def outlook(
    predictor: Predictor,
    candidates: Archs,
    reference: Archs,
    n: int,
    pending: Archs | Sequence[Architecture] = (),
) -> Outlook:
    """Return what labels of the pending architectures and of the `n` that `choose` would take next will bring.

    Arguments are those of `choose`. Labels change covariances only through the predictor's hyper-parameters, so it can
    be said before they are there.
    """
    design = _Design(predictor, candidates, reference, pending, None)
    for _ in range(min(n, len(candidates))):
        design.take()
    return Outlook(design.reference, design.shrunk)


class _Design:
    """A greedy design under way.

    With F the root of the covariance and f the row of a label, the covariance becomes F (I - f f' / (f'f + s^2)) F'. A
    root of the matrix in brackets is I - c f f', so each label changes everything by an outer product.
    """

    def __init__(
        self,
        predictor: Predictor,
        candidates: Archs,
        reference: Archs,
        pending: Archs | Sequence[Architecture],
        importance: FloatArray | None,
    ) -> None:
        space = predictor.space
        pool = np.concatenate([space.genes(pending), space.genes(candidates)])
        self._noise = predictor.noise_variance
        root = _root(predictor, pool, space.genes(reference))
        self._open, self.reference = root[: len(pool)], root[len(pool) :]
        weights = np.full(len(self.reference), 1 / len(self.reference))
        if importance is not None:
            weights = importance / importance.sum()
        about = np.sqrt(weights)[:, None] * (self.reference - weights @ self.reference)
        if about.shape[1] < len(about):
            about = np.linalg.qr(about, mode="r")
        self._cross = self._open @ about.T
        """A matrix A of which A A' is C W C', with C the covariance of the pool with the reference about its mean and W
        the weights: the covariances themselves, or a rotation of them that is narrower."""
        self._labels: list[tuple[float, FloatArray]] = []
        self._waiting = len(pending)
        self._closed = np.zeros(len(pool), dtype=bool)
        for row in range(self._waiting):
            self._measure(row)

    @property
    def shrunk(self) -> FloatArray:
        """S, the product of what all labels so far have changed: the covariance is F S S' F'."""
        found = np.eye(self.reference.shape[1])
        for c, own in self._labels:
            found -= np.outer(found @ own, c * own)
        return found

    def take(self) -> int:
        """Return the position of the best candidate, which counts as measured from now on."""
        own = np.einsum("nk,nk->n", self._open, self._open)
        gain = np.einsum("nr,nr->n", self._cross, self._cross) / (own + self._noise)
        best = int(np.argmax(np.where(self._closed, -np.inf, gain)))
        self._measure(best)
        return best - self._waiting

    def _measure(self, row: int) -> None:
        """Condition on a label of a row of the pool."""
        self._closed[row] = True
        own = self._open[row].copy()
        squared = float(own @ own)
        if squared <= 0:
            return
        c = (1 - np.sqrt(self._noise / (squared + self._noise))) / squared
        with_pool = self._open @ own
        self._cross -= np.outer(with_pool, self._cross[row] / (squared + self._noise))
        self._open = self._open - np.outer(with_pool, c * own)
        self._labels.append((c, own))


def _root(predictor: Predictor, pool: IntArray, reference: IntArray) -> FloatArray:
    """Return F such that F F' is the covariance of the pool and the reference sample, in this order."""
    both = np.concatenate([pool, reference])
    root = predictor.covariance_root(both)
    if root is not None:
        return root
    covariance = predictor.covariance(both, both)
    covariance[np.diag_indices(len(both))] += JITTER * np.trace(covariance) / len(both)
    return np.asarray(np.linalg.cholesky(covariance))
