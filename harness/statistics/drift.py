"""The drift of a session: how much slower the whole device has become, from networks that are timed repeatedly.

The model is a two-way one of the logarithms of pass latencies,

    log y_i = a_network(i) + d(t_i) + e_i,    e_i ~ Student t with variance phi (sigma_i^2 + tau^2).

The levels a are fixed effects, so that the order of measurement may be confounded with size: every network is compared
with itself only, anchors and networks in several passes alike. d is Gaussian: the sum of a line, of an integrated
random walk (a smoothing spline: heating up) and of a random walk with Cauchy steps (changes of the clock, other
programs that come and go). Its knots move to where it changes. The variances of the three maximise the restricted
likelihood. If there is no drift they are zero, or the likelihood gains too little from them: nothing is corrected.

Sources:
    Patterson and Thompson (1971), Biometrika 58, 545-554: restricted likelihood.
    Wahba (1978), J. R. Stat. Soc. B 40, 364-372: smoothing splines as integrated random walks.
    Lange, Little and Taylor (1989), J. Am. Stat. Assoc. 84, 881-896: Student-t errors by weights (nu + 1) / (nu + z^2).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.common.blas_threads import one_thread

if TYPE_CHECKING:  # much of scipy takes longer to import than all of latlab, and most commands fit no drift
    from scipy import sparse

__all__ = ["Drift", "Observation", "failed_anchors", "fit_drift"]

Floats = NDArray[np.float64]

KNOTS = 150
"""Most knots; fewer if there are fewer times. Between two knots d is a straight line."""
PRIOR_FREEDOM = 4.0
"""Degrees of freedom of the prior of the noise, which is that of the passes' own errors: a few anchors at two levels
are then a step, and not noise that happens to be large."""
TAIL_FREEDOM = 4.0
"""Degrees of freedom of the noise (Student t): passes that a burst has hit count little."""
JUMP_FREEDOM = 1.0
"""Degrees of freedom of the walk's steps (1: Cauchy): most are tiny, a few are large."""
ROUNDS = 5
"""Rounds in which weights and variances are estimated in turn; after these they hardly change."""
FEW = 30
"""Degrees of freedom below which a pass that departs from its neighbours is left out: there are too few others to show
whether it is an outlier or a change."""
MOVES = 2
"""First rounds, after each of which the knots move."""
PAYS = 12.0
"""Least drift: twice the gain in log-likelihood. In simulated sessions without drift, fewer than one in 100 has more;
a drift of 20 % gains hundreds."""
START = ((-6.0, -12.0, -8.0), (-6.0, -4.0, -12.0))
"""Two starts of the search: logarithms of the variances (line, spline, walk), with the session as unit of time."""
BOUNDS = ((-20.0, 2.0), (-25.0, 8.0), (-20.0, 4.0))
"""Bounds of these logarithms."""
_MEDIAN_OF_CHI2 = 0.4549

ANCHOR_Z = 4.0
"""Standard deviations from its neighbours beyond which an anchor fails."""
ANCHOR_PERCENT = 5.0
"""Least departure in percent with which an anchor fails."""
ANCHOR_REACH = 2
"""Neighbours on either side that an anchor is compared with: three in a row that agree are a new level."""
TELLING = 8
"""Fewest differences between neighbours from which the scatter of anchors is estimated."""


class Observation(NamedTuple):
    """One pass of one network or anchor, as the drift model takes it."""

    time_s: float
    """Seconds on the session's clock."""
    network: Hashable
    log_ms: float
    """Logarithm of the pass's trimmed mean in ms."""
    sigma: float
    """Standard error of that mean, as a share of it; 0 if not known."""


@dataclass(frozen=True)
class Drift:
    """The drift of a session: the device's slowdown against its average, over time.

    Arrays have shape (knots,); without knots there is no drift.
    """

    times_s: Floats
    """Times of the knots in seconds on the session's clock."""
    log_factors: Floats
    """Logarithm of the slowdown at these times. Its mean over the session's passes is 0, so that the correction does
    not change the session's level."""
    stderrs: Floats
    """Standard errors of `log_factors`."""
    gain: float = 0.0
    """Twice the gain in log-likelihood over a model without drift."""
    noise: float = 0.0
    """Relative standard deviation of a pass without the drift, estimated from how networks repeat themselves."""

    @property
    def significant(self) -> bool:
        """True if there is a drift at all; if not, every correction is exactly 0."""
        return bool(len(self.times_s))

    @property
    def percent(self) -> float:
        """Slowdown in percent from the session's fast times to its slow ones.

        The fastest and the slowest 2.5 % of the session are left out: a short burst is no drift of a session, although
        the correction follows it.
        """
        if not self.significant:
            return 0.0
        low, high = np.quantile(self.log_factor(np.linspace(self.times_s[0], self.times_s[-1], 1000)), (0.025, 0.975))
        return 100 * math.expm1(float(high - low))

    @overload
    def log_factor(self, time_s: float) -> float: ...
    @overload
    def log_factor(self, time_s: Sequence[float] | Floats) -> Floats: ...
    def log_factor(self, time_s: float | Sequence[float] | Floats) -> float | Floats:
        """Return what to subtract from the log-latency of a pass at `time_s`; of the shape of `time_s`."""
        return _interpolate(time_s, self.times_s, self.log_factors)

    @overload
    def stderr(self, time_s: float) -> float: ...
    @overload
    def stderr(self, time_s: Sequence[float] | Floats) -> Floats: ...
    def stderr(self, time_s: float | Sequence[float] | Floats) -> float | Floats:
        """Return the standard error of `log_factor` at `time_s`, given the fitted variances."""
        return _interpolate(time_s, self.times_s, self.stderrs)

    def to_json(self) -> dict[str, Any]:
        """Return the drift as JSON values, rounded to six digits."""
        return {
            "times_s": [round(float(value), 6) for value in self.times_s],
            "log_factor": [round(float(value), 6) for value in self.log_factors],
            "stderr": [round(float(value), 6) for value in self.stderrs],
            "gain": round(self.gain, 3),
            "noise": round(self.noise, 6),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the drift that `to_json` made these values of."""
        times_s, log_factors, stderrs = (
            np.array(values[name], dtype=float) for name in ("times_s", "log_factor", "stderr")
        )
        return cls(times_s, log_factors, stderrs, float(values["gain"]), float(values["noise"]))


def _interpolate(time_s: float | Sequence[float] | Floats, times_s: Floats, values: Floats) -> float | Floats:
    at = np.asarray(time_s, dtype=float)
    found = np.interp(at, times_s, values) if len(times_s) else np.zeros(at.shape)
    return found if at.ndim else float(found)


def fit_drift(points: Sequence[Observation], knots: int = KNOTS) -> Drift:
    """Return the drift of one session.

    Before the first and after the last pass of a repeated network it is constant. Networks with one pass say nothing
    about it.

    Args:
        points: passes of networks and anchors, in any order.
        knots: most knots.
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
"""Logarithms of latencies that differ by less are equal except for rounding."""


class _Data(NamedTuple):
    """The n passes of the networks that have several."""

    times: Floats
    """Shape (n,): seconds."""
    y: Floats
    """Shape (n,): log-latencies."""
    sigma2: Floats
    """Shape (n,): squared relative standard errors."""
    networks: sparse.csr_array
    """Shape (networks, n): 1 where the pass is the network's."""
    freedom: int
    """n - networks."""
    differences: tuple[Floats, Floats]
    """Half the squared differences of a network's successive passes, and their expectation by the standard errors. They
    show the noise, because drift hardly changes them (von Neumann 1941, Ann. Math. Stat. 12, 367-395)."""


def _data(points: Sequence[Observation]) -> _Data | None:
    """Return the passes of repeated networks, or None if no network was timed at two different times."""
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
        return None  # without any noise, as only in simulation, there is no drift either
    sigma = np.array([points[row].sigma for row in rows], dtype=float)
    sigma2 = _moderated(np.where(np.isfinite(sigma), sigma, 0.0) ** 2, network)
    successive = np.diff(network) == 0
    from scipy import sparse

    return _Data(
        times,
        y,
        sigma2,
        sparse.csr_array((np.ones(len(rows)), (network, np.arange(len(rows)))), shape=(len(repeated), len(rows))),
        freedom,
        (np.diff(y)[successive] ** 2 / 2, (sigma2[1:] + sigma2[:-1])[successive] / 2),
    )


def _moderated(sigma2: Floats, network: NDArray[np.intp]) -> Floats:
    """Return the squared errors, each replaced by that of its network.

    A pass has few samples, and a pass with a small error by luck would get a weight that makes drift of noise. The
    error of a network is the median over its passes, averaged with the median of all networks as if that came from
    `PRIOR_FREEDOM` more passes (as Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3, 3, does with variances).
    """
    counts = np.bincount(network)
    own = np.array([np.median(one) for one in np.split(sigma2, np.cumsum(counts)[:-1])])
    moderated = (counts * own + PRIOR_FREEDOM * np.median(own)) / (counts + PRIOR_FREEDOM)
    return np.asarray(moderated[network], dtype=float)


class _Grid(NamedTuple):
    """The knots of d, and the prior of its values there."""

    knots_s: Floats
    hats: sparse.csr_array
    """Shape (n, knots): matrix that turns d at the knots into d at the passes."""
    priors: Floats
    """Shape (3, knots, knots): covariances of line, spline and walk at the knots for a variance of 1. All are 0 at
    the first knot, and the unit of time is the session."""
    lengths: Floats
    """Shape (knots - 1,): lengths of the intervals, as shares of the session."""


def _grid(data: _Data, knots_s: Floats, jumps: Floats | float = 1.0) -> _Grid:
    """Return the grid of these knots.

    Args:
        jumps: factors of the walk's variance in each interval (its length is another), shape (knots - 1,).
    """
    t = (knots_s - knots_s[0]) / (knots_s[-1] - knots_s[0])
    lower, upper = np.minimum.outer(t, t), np.maximum.outer(t, t)
    walked = np.concatenate([[0.0], np.cumsum(jumps * np.diff(t))])
    priors = [np.outer(t, t), lower**2 * (3 * upper - lower) / 6, np.minimum.outer(walked, walked)]
    return _Grid(knots_s, _hats(data.times, knots_s), np.stack(priors), np.diff(t))


def _jumps(grid: _Grid, fit: _Fit) -> Floats:
    """Return the factors of the walk's variance that make its steps Student t, as a scale mixture of normal ones.

    They are (nu + z^2) / (nu + 1), where z is the step in standard deviations.
    """
    z2 = fit.steps2 / (math.exp(fit.logs[2]) * grid.lengths)
    return (JUMP_FREEDOM + z2) / (JUMP_FREEDOM + 1)


def _moved(distinct: Floats, knots_s: Floats, values: Floats, knots: int) -> NDArray[np.intp]:
    """Return which times become knots: half spread over the times, half over the changes of d; both ends stay."""
    walked = np.interp(distinct, knots_s, np.concatenate([[0.0], np.cumsum(np.abs(np.diff(values)))]))
    return _spread(np.linspace(0, 1, len(distinct)) + walked / max(float(walked[-1]), 1e-12), knots)


def _spread(places: Floats | NDArray[np.intp], knots: int) -> NDArray[np.intp]:
    """Return the positions of at most `knots` of the rising `places`, spread as evenly as they allow."""
    wanted = np.linspace(places[0], places[-1], min(knots, len(places)))
    return np.unique(np.clip(np.searchsorted(places, wanted - 1e-9), 0, len(places) - 1))


def _hats(times: Floats, knots: Floats) -> sparse.csr_array:
    """Return linear interpolation as a matrix of shape (times, knots); outside the knots it is constant."""
    at = np.clip(times, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    share = (at - knots[left]) / (knots[left + 1] - knots[left])
    rows = np.arange(len(at))
    from scipy import sparse

    return sparse.csr_array(
        (np.concatenate([1 - share, share]), (np.concatenate([rows, rows]), np.concatenate([left, left + 1]))),
        shape=(len(at), len(knots)),
    )


class _Fit(NamedTuple):
    """The fitted variances and d."""

    logs: Floats
    """Logarithms of the variances of line, spline and walk, as multiples of the noise's variance."""
    gain: float
    """Twice the gain in log-likelihood over a model without drift."""
    values: Floats
    """d at the knots, shape (knots,)."""
    covariance: Floats
    """Covariance of `values`, shape (knots, knots)."""
    steps2: Floats
    """Shape (knots - 1,): expected squares of the walk's steps, as multiples of the noise's variance."""
    residuals: Floats
    """Shape (n,): log-latencies without level and drift."""
    spent: float
    """Degrees of freedom that d takes."""


def _fit(data: _Data, grid: _Grid, weights: Floats, starts: Sequence[Sequence[float] | Floats]) -> _Fit:
    """Fit the three variances by restricted maximum likelihood, with the noise's variance phi profiled out.

    With M = W - W Z (Z' W Z)^-1 Z' W, which takes the networks' levels out, A = H' M H, b = H' M y and the prior
    covariance P at the knots:

        -2 log L = m log phi + log |I + A P|,   m phi = y' M y - b' P (I + A P)^-1 b,   m = n - networks,

    The prior of phi adds `PRIOR_FREEDOM` to m, and the same to m phi, as if phi were 1. d at the knots then has the
    mean P (I + A P)^-1 b and the covariance phi P (I + A P)^-1.
    """
    from scipy import linalg, optimize, sparse

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
    """Return the variance of passes that their own standard errors do not contain.

    It is the one with which half of the squares are below the median of chi^2. That is a robust version of Paule and
    Mandel's estimator (J. Res. Natl. Bur. Stand. 87, 1982, 377-385), which takes the mean.
    """

    from scipy import optimize

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
    """Return for each run of an anchor whether it departs from its neighbours, and so fails.

    Hampel's identifier (Hampel 1974, J. Am. Stat. Assoc. 69, 383-393; as a filter, Pearson 2002, IEEE Trans. Control
    Syst. Technol. 10, 55-63): x_i fails where

        |x_i - median(x_(i-k) .. x_(i+k))| > max(z S, log(1 + percent / 100)),   k = `reach`,

    among the runs of the same network in their order in time; towards an end k shrinks, but not below 1. At the end
    itself, where the window is the last three, a run on the line through the other two does not fail. A running median
    keeps edges (Tukey 1977, Exploratory Data Analysis, 7): a lasting shift is drift and fails no run, a departure of
    up to k runs in a row fails. S, the scatter of an anchor's runs, is 1.4826 median |x_(i+1) - x_i| / sqrt(2), which
    shifts and single failures hardly touch, and at least the median standard error; with fewer than `TELLING`
    differences, it is the median standard error. If a network has fewer than three runs, none fails. A run without a
    finite latency always fails.

    Args:
        anchors: runs of any number of anchor networks, in any order.
        z: departure that fails, in multiples of S.
        percent: least departure that fails, in percent.
        reach: neighbours on either side.
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
