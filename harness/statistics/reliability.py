"""Reliability of labels: agreement of two sessions, differences between sessions, and the ceiling that noise sets.

Pure functions of numbers. Latencies are compared by logarithm, standard errors are shares of the latency, and an array
with several sessions has shape (networks, sessions), NaN where a network was not measured.

Sources:
    Spearman (1904), Am. J. Psychol. 15, 72-101: attenuation, corr(observed, true) = sqrt(reliability).
    Paule and Mandel (1982), J. Res. Natl. Bur. Stand. 87, 377-385: a variance between groups, with known
        variances within them.
    Louis (1984), J. Am. Stat. Assoc. 79, 393-398: estimates shrunk so that they vary as much as the truth does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from latlab.predictors.common.metrics import kendall, spearman

__all__ = [
    "BetweenSessions",
    "Ceiling",
    "Correlation",
    "Retest",
    "between_sessions",
    "ceiling",
    "correlation",
    "retest",
    "self_correlation",
]

Floats = NDArray[np.float64]

DRAWS = 200
"""Most random draws of noise, or of networks, for a rank correlation: its mean scatters by about a tenth of what one
draw does."""
MIN_DRAWS = 50
DRAWN = 600_000
"""Random numbers to draw in total, roughly: with many networks a draw scatters less, so that fewer are needed."""
CONFIDENCE = 0.95
LEAST = 3
"""Fewest networks for which a correlation is computed."""


class Retest(NamedTuple):
    """Agreement of two sessions' labels of the same networks; NaN for fewer than three, or if all labels are equal."""

    networks: int
    """Networks that both sessions measured."""
    spearman: float
    low: float
    high: float
    """Upper end of the 95 % bootstrap interval of `spearman` over networks; `low` is the lower one."""
    kendall: float
    scatter: float
    """Standard deviation of the logarithm of the labels' ratio: about sqrt(2) times a label's relative noise."""


def retest(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> Retest:
    """Return how well two sessions' labels agree.

    Args:
        first: latencies of shape (networks,), in any unit; NaN where there is none.
        second: the other session's, of the same networks in the same order.
        seed: of the bootstrap.
    """
    a, b = _both(first, second)
    if len(a) < LEAST:
        return Retest(len(a), *[math.nan] * 5)
    rho, scatter = spearman(a, b), float(np.std(np.log(a / b), ddof=1))
    if math.isnan(rho):
        return Retest(len(a), math.nan, math.nan, math.nan, math.nan, scatter)
    rows = np.random.default_rng(seed).integers(len(a), size=(_draws(len(a)), len(a)))
    low, high = np.quantile(_rank_correlations(a[rows], b[rows]), _ENDS)
    return Retest(len(a), rho, float(low), float(high), kendall(a, b), scatter)


def self_correlation(latencies: ArrayLike) -> float:
    """Return how a device correlates with itself when it is measured again (the measure of HELP's table A.3).

    It is the mean Spearman correlation over all pairs of sessions that share at least three networks; NaN if there are
    none.

    Args:
        latencies: shape (networks, sessions).
    """
    columns = np.atleast_2d(np.asarray(latencies, dtype=float)).T
    found = [spearman(*_both(a, b)) for a, b in combinations(columns, 2)]
    found = [rho for rho in found if math.isfinite(rho)]
    return float(np.mean(found)) if found else math.nan


class Ceiling(NamedTuple):
    """The highest correlations that labels permit, given their error bars; NaN for fewer than three networks."""

    networks: int
    """Networks whose label and error are known."""
    reliability: float
    """Share of the labels' variance that is not noise: Pearson's correlation of two sessions' logarithms."""
    pearson: float
    """The best correlation of log-latencies, sqrt(reliability)."""
    spearman: float
    """The best rank correlation: that of the true latencies with such labels, on average."""
    retest: float
    """Expected Spearman correlation of two sessions, if the error bars hold all of the noise."""
    low: float
    """Lower end of the interval in which that correlation lies in 95 % of cases. An observed one below it says that
    error bars are too narrow, or that sessions differ by something that no error bar within a session can hold."""
    high: float
    """Upper end of that interval."""


def ceiling(latencies: ArrayLike, sigmas: ArrayLike, *, between: float = 0.0, seed: int = 0) -> Ceiling:
    """Return the reliability ceiling: the best correlations that labels permit, given their noise.

    With y = log latency, s^2 = sigma^2 + between^2: reliability R = 1 - mean(s^2) / var(y), at least 0. Rank
    correlations come from Monte Carlo: the truth is taken to be mean(y) + sqrt(R) (y - mean(y)), which has the spread
    of the truth and the shape of the labels (Louis 1984). Normal noise of s is added to it twice, for test and retest.

    Args:
        latencies: shape (networks,), in any unit.
        sigmas: their standard errors as shares of the latency, one number or shape (networks,).
        between: standard deviation of a network's label from session to session that `sigmas` do not contain
            (`BetweenSessions.specific`).
        seed: of the random draws.
    """
    sigmas = np.broadcast_to(np.asarray(sigmas, dtype=float), np.shape(latencies))
    latency, sigma = _both(latencies, sigmas)
    if len(latency) < LEAST:
        return Ceiling(len(latency), *[math.nan] * 6)
    y, noise = np.log(latency), np.sqrt(sigma**2 + between**2)
    spread = float(np.var(y, ddof=1))
    reliability = max(0.0, 1 - float(np.mean(noise**2)) / spread) if spread else 0.0
    truth = y.mean() + math.sqrt(reliability) * (y - y.mean())
    rng = np.random.default_rng(seed)
    test, second = truth + noise * rng.standard_normal((2, _draws(len(y)), len(y)))
    with_itself = _rank_correlations(test, second)
    low, high = np.quantile(with_itself, _ENDS)
    return Ceiling(
        len(y),
        reliability,
        math.sqrt(reliability),
        float(np.mean(_rank_correlations(np.concatenate([test, second]), truth[None]))),
        float(np.mean(with_itself)),
        float(low),
        float(high),
    )


class BetweenSessions(NamedTuple):
    """Differences between sessions, without what error bars explain: relative standard deviations, NaN if not known."""

    networks: int
    """Networks that were measured in at least two sessions."""
    sessions: int
    shifts: Floats
    """Shape (sessions,): logarithm of how much slower each session is than the mean of all; NaN for a session that has
    no network in common with another."""
    errors: Floats
    """Standard errors of `shifts`, shape (sessions,)."""
    common: float
    """Standard deviation of whole sessions' shifts. A shift changes no order within a session. Few sessions give a poor
    estimate."""
    specific: float
    """Standard deviation of a network's label from session to session, without the sessions' shifts and without what
    the error bars explain."""
    ratio: float
    """Scatter of the labels around their networks' levels over what the error bars say: 1 if these are right."""


def between_sessions(latencies: ArrayLike, sigmas: ArrayLike) -> BetweenSessions:
    """Return the deviations between sessions, from networks measured in several: two-way random effects, known errors.

        y_is = a_i + c_s + g_is + e_is,   Var e_is = sigma_is^2,  Var g = specific^2,  Var c = common^2

    Networks' levels a are fixed. Paule and Mandel's equation sets `specific` so that the weighted squares of the
    residuals, with weights 1 / (sigma_is^2 + specific^2), equal their degrees of freedom, n - networks - sessions + 1;
    and then `common`, likewise, from the sessions' shifts and their variances. Both are 0 if error bars suffice. For
    two sessions specific^2 + mean(sigma^2) is half the variance of the differences.

    Args:
        latencies: shape (networks, sessions), in any unit; NaN where there is none.
        sigmas: their standard errors as shares of the latency, the same shape; NaN (not known) counts as 0.
    """
    y = np.log(np.atleast_2d(np.asarray(latencies, dtype=float)))
    y[np.isfinite(y).sum(axis=1) < 2] = np.nan
    here = np.isfinite(y)
    sessions = y.shape[1]
    sigma2 = np.nan_to_num(np.broadcast_to(np.asarray(sigmas, dtype=float), y.shape)) ** 2
    networks, used = int(here.any(axis=1).sum()), here.any(axis=0)
    freedom = int(here.sum()) - networks - int(used.sum()) + 1
    if networks == 0 or used.sum() < 2:
        unknown = np.full(sessions, np.nan)
        return BetweenSessions(networks, sessions, unknown, unknown, math.nan, math.nan, math.nan)
    here, y, sigma2 = here[:, used], np.nan_to_num(y[:, used]), sigma2[:, used]

    def two_way(extra: float) -> tuple[Floats, Floats, float]:
        """Return the sessions' shifts, their covariance, and the weighted squares of the residuals."""
        weights = here / (sigma2 + max(extra, 1e-14))
        totals = weights.sum(axis=1, keepdims=True)
        shares = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
        a = np.diag(weights.sum(axis=0)) - weights.T @ shares
        covariance = np.linalg.pinv(a, hermitian=True)
        centred = y - (shares * y).sum(axis=1, keepdims=True)
        shifts = covariance @ (weights * centred).sum(axis=0)
        rest = y - shifts
        rest = rest - (shares * rest).sum(axis=1, keepdims=True)
        return shifts, covariance, float((weights * rest**2).sum())

    specific2 = ratio = math.nan
    if freedom > 0:
        specific2 = _paule_mandel(lambda extra: two_way(extra)[2], freedom, float(np.ptp(y[here])) ** 2)
        if (sigma2[here] > 0).all():
            ratio = math.sqrt(two_way(0.0)[2] / freedom)
    shifts, covariance, _ = two_way(0.0 if math.isnan(specific2) else specific2)
    shifts = shifts - shifts.mean()
    own = np.diag(covariance)
    common2 = _paule_mandel(
        lambda extra: _squares(shifts, 1 / (own + extra + 1e-14)), len(shifts) - 1, float(np.ptp(shifts)) ** 2
    )
    everywhere, errors = np.full((2, sessions), np.nan)
    everywhere[used], errors[used] = shifts, np.sqrt(np.maximum(own, 0))
    return BetweenSessions(networks, sessions, everywhere, errors, math.sqrt(common2), math.sqrt(specific2), ratio)


class Correlation(NamedTuple):
    """A rank correlation (Spearman) and its significance; NaN for fewer than three pairs."""

    rho: float
    p: float
    """Probability of a correlation at least as large (of either sign) if there were none."""
    n: int
    """Number of pairs."""


def correlation(residuals: ArrayLike, covariate: ArrayLike) -> Correlation:
    """Return the rank correlation of residuals with a covariate, such as the order of measuring or the temperature.

    Its p is that of Student's t with n - 2 degrees of freedom, as if residuals were independent.

    Args:
        residuals: shape (n,), NaN where not known.
        covariate: the same shape, NaN where not known.
    """
    a, b = (np.asarray(one, dtype=float) for one in (residuals, covariate))
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Correlation(math.nan, math.nan, len(a))
    rho, freedom = float(_rank_correlations(a[None], b[None])[0]), len(a) - 2
    t = rho * math.sqrt(freedom / max((1 - rho) * (1 + rho), 1e-300))
    return Correlation(rho, float(2 * special.stdtr(freedom, -abs(t))), len(a))


_ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def _both(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """Return the entries of both arrays at places where both are finite."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    known = np.isfinite(a) & np.isfinite(b)
    return a[known], b[known]


def _draws(networks: int) -> int:
    return max(MIN_DRAWS, min(DRAWS, DRAWN // networks))


def _rank_correlations(a: Floats, b: Floats) -> Floats:
    """Return the Spearman correlation of each row of `a` with the same, or the only, row of `b`.

    It is 0 if one of them is constant, and so says nothing about an order.
    """
    ranks = [pd.DataFrame(one).rank(axis=1).to_numpy() for one in (a, b)]
    a, b = (one - one.mean(axis=1, keepdims=True) for one in ranks)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    rho: Floats = np.divide((a * b).sum(axis=1), scale, out=np.zeros_like(scale), where=scale > 0)
    return rho


def _squares(values: Floats, weights: Floats) -> float:
    mean = float(np.average(values, weights=weights))
    return float((weights * (values - mean) ** 2).sum())


def _paule_mandel(squares: Callable[[float], float], freedom: int, most: float) -> float:
    """Return the variance at which the falling `squares` equal their degrees of freedom; 0 if they are never more."""
    from scipy import optimize  # it takes longer to import than most of latlab

    if squares(0.0) <= freedom:
        return 0.0
    while squares(most) > freedom:
        most *= 4
    return float(optimize.brentq(lambda extra: squares(extra) - freedom, 0.0, most, xtol=1e-14, rtol=1e-6))
