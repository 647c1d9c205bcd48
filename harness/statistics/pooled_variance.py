"""The noise model of a session, estimated from many networks, so that no error bar rests on few samples alone.

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
"""Fewest networks for an estimate; with fewer, each network's error bar comes from its own samples only."""
FREEDOM_PER_NETWORK = 5.0
"""Most degrees of freedom of the estimate for each network that it is made from."""
MOST_FREEDOM = 200.0
PRIOR_NETWORKS = 5.0
"""Networks that `EFFECT_PRIORS` count as, next to the measured ones."""
ROUNDS = 15
"""Steps of the EM algorithm."""
LEAST, MOST = -0.3, 0.95
"""Range of the correlation of successive samples."""


LEARN_EVERY = 20
"""Finished networks after which a session's estimate is made again."""
MOST_NETWORKS = 200
"""Most networks of an estimate, the last ones: a device may change, and more networks would add little."""


class NoiseEstimator:
    """Keeps the noise model of a session up to date while it runs.

    Args:
        trim: share of a network's samples cut at each end, as in the session's policy.
    """

    def __init__(self, trim: float) -> None:
        self._trim = trim
        self._networks: list[Passes] = []
        self.model: NoiseModel | None = None
        """The current noise model; None until there are enough networks."""

    def add(self, passes: Passes) -> None:
        """Take in a network that has all its passes (samples in ns), and estimate again after each `LEARN_EVERY`."""
        self._networks.append(passes)
        if len(self._networks) % LEARN_EVERY == 0:
            self.model = estimate_noise(self._networks[-MOST_NETWORKS:], self._trim)


def estimate_noise(networks: Sequence[Passes], trim: float) -> NoiseModel | None:
    """Return how the networks of a session scatter, or None if fewer than `FEWEST` scatter at all.

    The correlation r is such that an AR(1) process would have the observed ratio of products of successive deviations
    to squared deviations from means of n samples (`_expected`); the observed ratio is the median over networks. If
    network i has the variance a_i with d_i degrees of freedom, e_i = log a_i - psi(d_i / 2) + log(d_i / 2) has the
    variance psi'(d_i / 2) + psi'(d_0 / 2), which gives the freedom d_0 (Smyth; with medians, because of outliers).
    Given these, the probabilities of `EFFECTS` are those under which the networks' differences between passes are
    likeliest (EM; Laird), with `EFFECT_PRIORS` counted as a few networks.

    Args:
        networks: the samples of each network's passes in ns, in order.
        trim: share cut at each end.
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
    """Return the expected sum of successive products over that of squares, around the mean, for an AR(1) process.

    Args:
        correlation: lag-1 correlation of the process.
        length: samples whose mean is subtracted.
    """
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    covariance = np.power(correlation, lags)
    centred = covariance - covariance.mean(0) - covariance.mean(1)[:, None] + covariance.mean()
    return float(np.trace(centred, 1) / np.trace(centred))


def _shrinkage(variances: NDArray[np.float64], freedoms: NDArray[np.float64], count: int) -> tuple[float, float]:
    """Return the usual variance and the degrees of freedom that it is worth (Smyth 2004)."""
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
