"""The drift of a session: how much slower the whole device has become, from passes of networks that it repeats.

A two-way model of the logarithms of pass latencies,

    log y_i = a_network(i) + d(t_i) + e_i,    e_i ~ Student t with variance phi (sigma_i^2 + tau^2),

whose levels a are fixed effects, so that the order of measurement may be confounded with size: every network is
compared with itself only, anchors and networks in several passes alike. d is Gaussian, a sum of a line, of an
integrated random walk (a smoothing spline: heating up) and of a random walk with Cauchy steps (changes of the clock,
neighbours that come and go), on knots that move to where it changes; the variances of the three maximise the restricted
likelihood. Without drift they are zero, or their gain in likelihood does not pay for them: no correction.

Sources:
    Patterson and Thompson (1971), Biometrika 58, 545-554: restricted likelihood.
    Wahba (1978), J. R. Stat. Soc. B 40, 364-372: smoothing splines as integrated random walks.
    Lange, Little and Taylor (1989), J. Am. Stat. Assoc. 84, 881-896: Student-t errors by weights (nu + 1) / (nu + z^2).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse

from latlab.predictors.common.blas_threads import one_thread

__all__ = ["Drift", "Observation", "failed_anchors", "fit_drift"]

Floats = NDArray[np.float64]

KNOTS = 150
"""At most; fewer where there are fewer times. Between two knots d is a line."""
PRIOR_FREEDOM = 4.0
"""What is known of the noise before the fit counts as so many passes: a few anchors at two levels are a step, no noise
that happens to be large."""
TAIL_FREEDOM = 4.0
"""Degrees of freedom of the noise: passes that a burst has hit count little."""
JUMP_FREEDOM = 1.0
"""Of the walk's steps: most are tiny, a few are large."""
ROUNDS = 5
"""Of weights and variances, in turn: then they hardly change any more."""
FEW = 30
"""Degrees of freedom below which a pass that departs from its neighbours is left out: none beside it tells whether it
is alone."""
MOVES = 2
"""Rounds after which the knots move."""
PAYS = 12.0
"""Twice the gain in log-likelihood below which there is no drift. In simulation without any, fewer than one session in
100 has more; 20 % of drift in a session have hundreds."""
START = ((-6.0, -12.0, -8.0), (-6.0, -4.0, -12.0))
"""Logarithms of the variances (line, spline, walk) per session, where the search begins."""
BOUNDS = ((-20.0, 2.0), (-25.0, 8.0), (-20.0, 4.0))
_MEDIAN_OF_CHI2 = 0.4549

ANCHOR_Z = 4.0
ANCHOR_PERCENT = 5.0
ANCHOR_REACH = 2
"""Neighbours on either side that an anchor is compared with: three in a row that agree are a new level."""
TELLING = 8
"""Differences between neighbours from which on they tell how much anchors scatter."""


class Observation(NamedTuple):
    """One pass of one network or anchor."""

    time_s: float
    network: Hashable
    log_ms: float
    """Logarithm of the pass's (trimmed) mean."""
    sigma: float
    """Its standard error, as a share of it; 0 where not known."""


@dataclass(frozen=True)
class Drift:
    """By how much a session's clock of work ran slow, over time. Without knots: not at all.

    Arrays have shape (knots,).
    """

    times_s: Floats
    log_factors: Floats
    """Logarithm of the slowdown at these times; its mean over the session's passes is 0, so that correcting leaves
    the session's level alone."""
    stderrs: Floats
    gain: float = 0.0
    """Twice by how much the drift makes the log-likelihood larger."""
    noise: float = 0.0
    """Relative standard deviation of a pass, from how networks repeat themselves when the drift is gone."""

    @property
    def significant(self) -> bool:
        """Whether there is a drift at all: where not, every correction is exactly 0."""
        return bool(len(self.times_s))

    @property
    def percent(self) -> float:
        """From the session's fast to its slow times, but for 2.5 % of it on either side: a short burst, which the
        correction follows all the same, makes no drift of a session."""
        if not self.significant:
            return 0.0
        low, high = np.quantile(self.log_factor(np.linspace(self.times_s[0], self.times_s[-1], 1000)), (0.025, 0.975))
        return 100 * math.expm1(float(high - low))

    @overload
    def log_factor(self, time_s: float) -> float: ...
    @overload
    def log_factor(self, time_s: Sequence[float] | Floats) -> Floats: ...
    def log_factor(self, time_s: float | Sequence[float] | Floats) -> float | Floats:
        """What to subtract from the log-latency of a pass at `time_s`: one, or an array of the same shape."""
        return _interpolate(time_s, self.times_s, self.log_factors)

    @overload
    def stderr(self, time_s: float) -> float: ...
    @overload
    def stderr(self, time_s: Sequence[float] | Floats) -> Floats: ...
    def stderr(self, time_s: float | Sequence[float] | Floats) -> float | Floats:
        """The standard error of `log_factor` there, given the variances."""
        return _interpolate(time_s, self.times_s, self.stderrs)

    def to_json(self) -> dict[str, Any]:
        return {
            "times_s": [round(float(value), 6) for value in self.times_s],
            "log_factor": [round(float(value), 6) for value in self.log_factors],
            "stderr": [round(float(value), 6) for value in self.stderrs],
            "gain": round(self.gain, 3),
            "noise": round(self.noise, 6),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        times_s, log_factors, stderrs = (
            np.array(values[name], dtype=float) for name in ("times_s", "log_factor", "stderr")
        )
        return cls(times_s, log_factors, stderrs, float(values["gain"]), float(values["noise"]))


def _interpolate(time_s: float | Sequence[float] | Floats, times_s: Floats, values: Floats) -> float | Floats:
    at = np.asarray(time_s, dtype=float)
    found = np.interp(at, times_s, values) if len(times_s) else np.zeros(at.shape)
    return found if at.ndim else float(found)


def fit_drift(points: Sequence[Observation], knots: int = KNOTS) -> Drift:
    """The drift of one session, in any order of points.

    Before the first and after the last time of a repeated network it stays what it is there. Networks with one pass
    tell nothing.
    """
    data = _data(points)
    if data is not None and data.freedom < FEW:
        data = _data([point for point, failed in zip(points, failed_anchors(points), strict=True) if not failed])
    if data is None:
        return Drift(np.empty(0), np.empty(0), np.empty(0))
    with one_thread():
        return _drift_of(data, np.array([point.time_s for point in points]), knots)


def _drift_of(data: _Data, all_times: Floats, knots: int) -> Drift:
    distinct = np.unique(data.times)
    grid = _grid(data, distinct[_spread(np.arange(len(distinct)), knots)])
    tau2 = _extra_variance(*data.differences)
    fit = _fit(data, grid, 1 / (data.sigma2 + tau2), START)
    for number in range(ROUNDS):
        squares = fit.residuals**2 * len(data.y) / max(1.0, data.freedom - fit.spent)
        tau2 = _extra_variance(squares, data.sigma2)
        variance = data.sigma2 + tau2
        weights = (TAIL_FREEDOM + 1) / (TAIL_FREEDOM + squares / variance) / variance
        if fit.gain > PAYS:
            moved = distinct[_moved(distinct, grid.knots_s, fit.values, knots)] if number < MOVES else grid.knots_s
            middles = (moved[1:] + moved[:-1]) / 2
            grid = _grid(data, moved, _jumps(grid, fit)[np.searchsorted(grid.knots_s, middles) - 1])
        fit = _fit(data, grid, weights, [fit.logs])
    noise = math.sqrt(float(np.median(data.sigma2)) + tau2)
    if fit.gain < PAYS:
        return Drift(np.empty(0), np.empty(0), np.empty(0), fit.gain, noise)
    everywhere = _hats(all_times, grid.knots_s)
    centring = np.eye(len(grid.knots_s)) - np.asarray(everywhere.mean(axis=0)).ravel()
    variances = np.diag(centring @ fit.covariance @ centring.T)
    return Drift(grid.knots_s, centring @ fit.values, np.sqrt(np.maximum(variances, 0)), fit.gain, noise)


SAME = 1e-9
"""Logarithms of latencies that differ by less are equal but for rounding."""


class _Data(NamedTuple):
    """Of the n passes of networks with several."""

    times: Floats
    y: Floats
    """Shape (n,): log-latencies."""
    sigma2: Floats
    networks: sparse.csr_array
    """Shape (networks, n): 1 where the pass is the network's."""
    freedom: int
    differences: tuple[Floats, Floats]
    """Half the squared differences of a network's successive passes, and what errors say of them: noise as drift
    hardly touches it (von Neumann 1941, Ann. Math. Stat. 12, 367-395)."""


def _data(points: Sequence[Observation]) -> _Data | None:
    """None where nothing is repeated at two times."""
    of: dict[Hashable, list[int]] = {}
    for number, point in enumerate(points):
        if math.isfinite(point.log_ms) and math.isfinite(point.time_s):
            of.setdefault(point.network, []).append(number)
    repeated = [sorted(numbers, key=lambda n: points[n].time_s) for numbers in of.values() if len(numbers) > 1]
    rows = [number for numbers in repeated for number in numbers]
    network = np.repeat(np.arange(len(repeated)), [len(numbers) for numbers in repeated])
    times = np.array([points[row].time_s for row in rows])
    freedom = len(rows) - len(repeated)
    if freedom < 2 or np.ptp(times) <= 0:
        return None
    y = np.array([points[row].log_ms for row in rows])
    starts = np.flatnonzero(np.diff(network, prepend=-1))
    if np.max(np.maximum.reduceat(y, starts) - np.minimum.reduceat(y, starts)) < SAME:
        return None  # a device without any noise, which none is, does not drift either
    sigma = np.array([points[row].sigma for row in rows], dtype=float)
    sigma2 = _moderated(np.where(np.isfinite(sigma), sigma, 0.0) ** 2, network)
    successive = np.diff(network) == 0
    return _Data(
        times,
        y,
        sigma2,
        sparse.csr_array((np.ones(len(rows)), (network, np.arange(len(rows)))), shape=(len(repeated), len(rows))),
        freedom,
        (np.diff(y)[successive] ** 2 / 2, (sigma2[1:] + sigma2[:-1])[successive] / 2),
    )


def _moderated(sigma2: Floats, network: NDArray[np.intp]) -> Floats:
    """Squared errors, each for that of its network: passes have few samples, and a weight that is large by luck makes
    drift of noise. The median over the network's passes, averaged with all networks' as if that were of
    `PRIOR_FREEDOM` more (as Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3, 3, does with variances)."""
    counts = np.bincount(network)
    own = np.array([np.median(one) for one in np.split(sigma2, np.cumsum(counts)[:-1])])
    moderated = (counts * own + PRIOR_FREEDOM * np.median(own)) / (counts + PRIOR_FREEDOM)
    return np.asarray(moderated[network], dtype=float)


class _Grid(NamedTuple):
    knots_s: Floats
    hats: sparse.csr_array
    """Shape (n, knots): d at the passes, from d at the knots."""
    priors: Floats
    """Shape (3, knots, knots): covariances of line, spline and walk at the knots for a variance of 1; all are 0 at
    the first knot, and time is in sessions."""
    lengths: Floats
    """Shape (knots - 1,): of the intervals, in sessions."""


def _grid(data: _Data, knots_s: Floats, jumps: Floats | float = 1.0) -> _Grid:
    """`jumps`: by how much more the walk varies in an interval than its length alone says, shape (knots - 1,)."""
    t = (knots_s - knots_s[0]) / (knots_s[-1] - knots_s[0])
    lower, upper = np.minimum.outer(t, t), np.maximum.outer(t, t)
    walked = np.concatenate([[0.0], np.cumsum(jumps * np.diff(t))])
    priors = [np.outer(t, t), lower**2 * (3 * upper - lower) / 6, np.minimum.outer(walked, walked)]
    return _Grid(knots_s, _hats(data.times, knots_s), np.stack(priors), np.diff(t))


def _jumps(grid: _Grid, fit: _Fit) -> Floats:
    """Student-t steps as a scale mixture: (nu + z^2) / (nu + 1) times the variance, z the step in its deviations."""
    z2 = fit.steps2 / (math.exp(fit.logs[2]) * grid.lengths)
    return (JUMP_FREEDOM + z2) / (JUMP_FREEDOM + 1)


def _moved(distinct: Floats, knots_s: Floats, values: Floats, knots: int) -> NDArray[np.intp]:
    """Which of the times become knots: half of them by their number, half by how much d changes (both ends stay)."""
    walked = np.interp(distinct, knots_s, np.concatenate([[0.0], np.cumsum(np.abs(np.diff(values)))]))
    return _spread(np.linspace(0, 1, len(distinct)) + walked / max(float(walked[-1]), 1e-12), knots)


def _spread(places: Floats | NDArray[np.intp], knots: int) -> NDArray[np.intp]:
    """Positions of at most so many of the rising `places`, as evenly as they lie."""
    wanted = np.linspace(places[0], places[-1], min(knots, len(places)))
    return np.unique(np.clip(np.searchsorted(places, wanted - 1e-9), 0, len(places) - 1))


def _hats(times: Floats, knots: Floats) -> sparse.csr_array:
    """Linear interpolation as a matrix of shape (times, knots), constant outside."""
    at = np.clip(times, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    share = (at - knots[left]) / (knots[left + 1] - knots[left])
    rows = np.arange(len(at))
    return sparse.csr_array(
        (np.concatenate([1 - share, share]), (np.concatenate([rows, rows]), np.concatenate([left, left + 1]))),
        shape=(len(at), len(knots)),
    )


class _Fit(NamedTuple):
    logs: Floats
    """Logarithms of the three variances, as multiples of the noise's."""
    gain: float
    values: Floats
    """Of d at the knots, shape (knots,)."""
    covariance: Floats
    steps2: Floats
    """Shape (knots - 1,): expected squares of the walk's steps, as multiples of the noise's variance."""
    residuals: Floats
    spent: float
    """Degrees of freedom that d takes."""


def _fit(data: _Data, grid: _Grid, weights: Floats, starts: Sequence[Sequence[float] | Floats]) -> _Fit:
    """Maximum restricted likelihood of the three variances, with the noise's profiled out.

    With M = W - W Z (Z' W Z)^-1 Z' W, which takes the networks' levels out, A = H' M H, b = H' M y and the prior
    covariance P at the knots:

        -2 log L = m log phi + log |I + A P|,   m phi = y' M y - b' P (I + A P)^-1 b,   m = n - networks,

    but for `PRIOR_FREEDOM`, by which m grows, and m phi as if phi were 1; and d at the knots has mean
    P (I + A P)^-1 b and covariance phi P (I + A P)^-1.
    """
    z, h, y = data.networks, grid.hats, data.y
    totals = z @ weights
    sums = z @ sparse.diags_array(weights) @ h
    centred = y - z.T @ ((z @ (weights * y)) / totals)
    a = (h.T @ sparse.diags_array(weights) @ h - sums.T @ sparse.diags_array(1 / totals) @ sums).toarray()
    b = h.T @ (weights * centred)
    square = float(centred @ (weights * centred)) + PRIOR_FREEDOM
    freedom = data.freedom + PRIOR_FREEDOM
    eye = np.eye(len(a))

    def solve(logs: Floats) -> tuple[float, Floats, Floats, Any, float]:
        prior = np.tensordot(np.exp(logs), grid.priors, 1)
        factor: Any = linalg.lu_factor(eye + a @ prior, check_finite=False)
        determinant = float(np.sum(np.log(np.abs(np.diag(factor[0])))))
        alpha: Floats = linalg.lu_solve(factor, b, check_finite=False)
        phi = max(square - float(b @ prior @ alpha), PRIOR_FREEDOM) / freedom
        return freedom * math.log(phi) + determinant, prior, alpha, factor, phi

    def loss(logs: Floats) -> tuple[float, Floats]:
        value, _, alpha, factor, phi = solve(logs)
        inner = linalg.lu_solve(factor, a, check_finite=False)
        traces = np.einsum("ij,kji->k", inner, grid.priors)
        return value, np.exp(logs) * (traces - (grid.priors @ alpha) @ alpha / phi)

    found = min(
        (optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=BOUNDS) for start in starts),
        key=lambda result: float(result.fun),
    )
    value, prior, alpha, factor, phi = solve(found.x)
    values = prior @ alpha
    inverse: Floats = linalg.lu_solve(factor, eye, check_finite=False)
    walk = np.exp(found.x[2]) * grid.priors[2]
    walk_left = walk - walk @ linalg.lu_solve(factor, a, check_finite=False) @ walk
    own = np.diag(walk_left)
    steps2 = np.diff(walk @ alpha) ** 2 / phi + np.maximum(own[1:] + own[:-1] - 2 * np.diag(walk_left, 1), 0.0)
    rest = y - h @ values
    residuals = rest - z.T @ ((z @ (weights * rest)) / totals)
    return _Fit(
        found.x,
        freedom * math.log(square / freedom) - value,
        values,
        phi * prior @ inverse,
        steps2,
        residuals,
        float(np.trace(inverse @ a @ prior)),
    )


def _extra_variance(squares: Floats, sigma2: Floats) -> float:
    """What passes differ by beyond their own standard errors: so much that half of the squares are below its median.

    Robust like Paule and Mandel's estimator (J. Res. Natl. Bur. Stand. 87, 1982, 377-385), which takes the mean.
    """

    def surplus(tau2: float) -> float:
        return float(np.median(squares / (sigma2 + tau2))) - _MEDIAN_OF_CHI2

    least = 1e-12
    most = float(np.median(squares)) / _MEDIAN_OF_CHI2 + least
    if surplus(least) <= 0 or surplus(most) >= 0:
        return least
    return float(optimize.brentq(surplus, least, most, rtol=1e-3))


def failed_anchors(
    anchors: Sequence[Observation], *, z: float = ANCHOR_Z, percent: float = ANCHOR_PERCENT, reach: int = ANCHOR_REACH
) -> list[bool]:
    """Which runs of anchors are disturbed, one flag each: what was measured beside them is measured again.

    Hampel's identifier (Hampel 1974, J. Am. Stat. Assoc. 69, 383-393; as a filter, Pearson 2002, IEEE Trans. Control
    Syst. Technol. 10, 55-63): x_i fails where

        |x_i - median(x_(i-k) .. x_(i+k))| > max(z S, log(1 + percent / 100)),   k = `reach`,

    among the runs of the same network in their order in time; towards an end k shrinks, but not below 1. At the end
    itself, where the window is the last three, a run on the line through the other two does not fail. A running median
    keeps edges (Tukey 1977, Exploratory Data Analysis, 7): a lasting shift is drift and fails nothing, a departure of
    up to k runs in a row fails. S, the scatter of an anchor's runs, is 1.4826 median |x_(i+1) - x_i| / sqrt(2), which
    shifts and single failures hardly touch, and at least the median standard error; with fewer than `TELLING`
    differences, only that. Of fewer than three runs of a network none fails; one without a finite latency always does.
    """
    failed = [not math.isfinite(point.log_ms) for point in anchors]
    series: dict[Hashable, list[int]] = {}
    for number in sorted(range(len(anchors)), key=lambda number: anchors[number].time_s):
        if not failed[number]:
            series.setdefault(anchors[number].network, []).append(number)
    logs = [np.array([anchors[number].log_ms for number in numbers]) for numbers in series.values()]
    steps = np.concatenate([np.abs(np.diff(one)) for one in logs]) if logs else np.empty(0)
    sigmas = [point.sigma for point in anchors if math.isfinite(point.sigma)]
    scatter = float(np.median(sigmas)) if sigmas else 0.0
    if len(steps) >= TELLING:
        scatter = max(scatter, 1.4826 * float(np.median(steps)) / math.sqrt(2))
    limit = max(z * scatter, math.log1p(percent / 100))
    for numbers, log_ms in zip(series.values(), logs, strict=True):
        last = len(log_ms) - 1
        for place, number in enumerate(numbers):
            k = max(1, min(reach, place, last - place))
            centre = min(max(place, 1), last - 1)
            if last >= 2:
                usual = float(np.median(log_ms[max(0, centre - k) : centre + k + 1]))
                failed[number] = abs(float(log_ms[place]) - usual) > limit
                if place in (0, last):
                    trend = 2 * log_ms[centre] - log_ms[2 * centre - place]
                    failed[number] &= abs(float(log_ms[place] - trend)) > limit
    return failed
