"""How networks scatter in a session: learnt from many, so that the error bar of one does not hang on its few samples.

Sources:
    Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3, 3: how far variances differ, by the scatter of their logarithms.
    Laird (1978), J. Am. Stat. Assoc. 73, 805-811: a prior's weights on a grid, by EM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

from latlab.harness.statistics.estimators import (
    EFFECT_PRIORS,
    EFFECTS,
    NoiseModel,
    Within,
    ar1_inflation,
    between_stderr,
    trimmed_mean,
    within_passes,
)

__all__ = ["FEWEST", "NoiseEstimator", "estimate_noise"]

Passes = Sequence[Sequence[int]]

FEWEST = 10
"""Networks from which it is learnt at least; of fewer, each is taken by itself."""
FREEDOM_PER_NETWORK = 5.0
"""What is learnt is worth no more than so many degrees of freedom for each of them."""
MOST_FREEDOM = 200.0
PRIOR_NETWORKS = 5.0
"""What `EFFECT_PRIORS` are worth beside them."""
ROUNDS = 15
LEAST, MOST = -0.3, 0.95


LEARN_EVERY = 20
"""Networks after which a session's scatter is learnt again."""
MOST_NETWORKS = 200
"""The last so many: what a device is like may change, and more would say little more."""


class NoiseEstimator:
    """What is usual in a session, as far as it has come.

    Args:
        trim: of its policy.
    """

    def __init__(self, trim: float) -> None:
        self._trim = trim
        self._networks: list[Passes] = []
        self.model: NoiseModel | None = None
        """None until there are enough networks."""

    def add(self, passes: Passes) -> None:
        """A network that has all its passes."""
        self._networks.append(passes)
        if len(self._networks) % LEARN_EVERY == 0:
            self.model = estimate_noise(self._networks[-MOST_NETWORKS:], self._trim)


def estimate_noise(networks: Sequence[Passes], trim: float) -> NoiseModel | None:
    """What is usual of the networks of a session; None where too few scatter at all.

    The correlation r is such that an AR(1) process would have the pooled ratio of successive products to squares
    around pass means of n samples (`_expected`); each network counts alike. Of the variances a_i with d_i degrees
    of freedom, e_i = log a_i - psi(d_i / 2) + log(d_i / 2) has the variance psi'(d_i / 2) + psi'(d_0 / 2), which gives
    the freedom d_0 (Smyth; with medians, for outliers). Given these, the probabilities of `EFFECTS` are those under
    which the networks' differences between passes are likeliest (EM), beside a few networks of `EFFECT_PRIORS`.

    Args:
        networks: of each, the samples of its passes in ns, in order.
    """
    known = [(passes, own) for passes in networks if (own := within_passes(passes, trim)).squares > 0]
    if len(known) < FEWEST:
        return None
    length = round(float(np.median([len(one) for passes, _ in known for one in passes])))
    correlation = _correlation([own for _, own in known], length)
    inflation = ar1_inflation(correlation, length)
    variances = np.array([own.variance for _, own in known]) * (length - 1) / max(1.0, length - inflation)
    freedoms = np.array([own.freedom for _, own in known]) / max(1.0, inflation)
    variance, freedom = _shrinkage(variances, freedoms, len(known))
    return NoiseModel(
        variance, freedom, correlation, _effects(known, trim, variances, freedoms, variance, freedom, inflation)
    )


def _correlation(known: Sequence[Within], length: int) -> float:
    if length < 3:
        return 0.0
    found = float(np.median([own.products / own.squares for own in known]))
    low, high = LEAST, MOST
    for _ in range(30):
        middle = (low + high) / 2
        if _expected(middle, length) < found:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _expected(correlation: float, length: int) -> float:
    """Expected products of successive samples over expected squares, around their mean, of an AR(1) process."""
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    covariance = np.power(correlation, lags)
    centred = covariance - covariance.mean(0) - covariance.mean(1)[:, None] + covariance.mean()
    return float(np.trace(centred, 1) / np.trace(centred))


def _shrinkage(variances: NDArray[np.float64], freedoms: NDArray[np.float64], count: int) -> tuple[float, float]:
    """The usual variance, and how many degrees of freedom it is worth."""
    logs = np.log(variances) - digamma(freedoms / 2) + np.log(freedoms / 2)
    centre = float(np.median(logs))
    excess = float((1.4826 * np.median(np.abs(logs - centre))) ** 2 - np.median(polygamma(1, freedoms / 2)))
    most = min(MOST_FREEDOM, FREEDOM_PER_NETWORK * count)
    grid = np.geomspace(0.5, most, 200)
    freedom = most if excess <= 0 else float(grid[np.argmin(np.abs(polygamma(1, grid / 2) - excess))])
    return math.exp(centre + float(digamma(freedom / 2)) - math.log(freedom / 2)), freedom


def _effects(
    known: Sequence[tuple[Passes, Within]],
    trim: float,
    variances: NDArray[np.float64],
    freedoms: NDArray[np.float64],
    variance: float,
    freedom: float,
    inflation: float,
) -> tuple[float, ...]:
    grid = 1 + np.square(EFFECTS)
    rows = []
    for (passes, _), own, own_freedom in zip(known, variances, freedoms, strict=True):
        if len(passes) < 2:
            continue
        samples = [sample for one in passes for sample in one]
        total = freedom + own_freedom
        shrunk = (freedom * variance + own_freedom * own) / total
        within = trimmed_mean(samples, trim) ** 2 * shrunk * inflation / len(samples)
        more = len(passes) - 1
        excess = more * between_stderr(passes, trim) ** 2 / within
        rows.append(-more / 2 * np.log(grid) - (total + more) / 2 * np.log(total + excess / grid))
    prior = np.array(EFFECT_PRIORS)
    if not rows:
        return EFFECT_PRIORS
    logs = np.array(rows)
    likelihood = np.exp(logs - logs.max(1, keepdims=True))
    weights = prior
    for _ in range(ROUNDS):
        posterior = likelihood * weights
        posterior /= posterior.sum(1, keepdims=True)
        weights = (posterior.sum(0) + PRIOR_NETWORKS * prior) / (len(rows) + PRIOR_NETWORKS)
    return tuple(weights.tolist())
