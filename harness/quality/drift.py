"""The drift of a session: how much slower the whole device has become, from passes of networks that it repeats.

A two-way model of the logarithms of pass latencies,

    log y_i = a_network(i) + d(t_i) + e_i,    e_i ~ Student t with variance phi (sigma_i^2 + tau^2),

whose levels a are fixed effects, so that the order of measurement may be confounded with size: every network is
compared with itself only, anchors and networks in several passes alike. d is Gaussian, a sum of a line, of an
integrated random walk (a smoothing spline: heating up) and of a random walk (steps), on knots; the variances of the
three maximise the restricted likelihood. Without drift they are zero, or their gain in likelihood does not pay for
them: no correction.

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

__all__ = ["Drift", "Point", "fit_drift"]

Floats = NDArray[np.float64]

KNOTS = 100
"""At most; fewer where there are fewer times. The random walk between two knots is drawn as a line."""
TAIL_FREEDOM = 4.0
"""Degrees of freedom of the noise: passes that a burst has hit count little."""
ROUNDS = 4
"""Of weights and variances, in turn: then they hardly change any more."""
PAYS = 8.0
"""Twice the gain in log-likelihood below which there is no drift. In simulation without any, about one session in 100
has more."""
START = ((-6.0, -12.0, -8.0), (-6.0, -4.0, -12.0))
"""Logarithms of the variances (line, spline, walk) per session, where the search begins."""
BOUNDS = ((-20.0, 2.0), (-25.0, 8.0), (-20.0, 4.0))
_MEDIAN_OF_CHI2 = 0.4549


class Point(NamedTuple):
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
        """From the fastest to the slowest time of the session."""
        return 100 * math.expm1(float(np.ptp(self.log_factors))) if self.significant else 0.0

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
            "times_s": [round(float(value), 3) for value in self.times_s],
            "log_factor": [round(float(value), 6) for value in self.log_factors],
            "stderr": [round(float(value), 6) for value in self.stderrs],
            "gain": round(self.gain, 3),
            "noise": round(self.noise, 6),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        arrays = (np.array(values[name], dtype=float) for name in ("times_s", "log_factor", "stderr"))
        return cls(*arrays, gain=float(values["gain"]), noise=float(values["noise"]))


def _interpolate(time_s: float | Sequence[float] | Floats, times_s: Floats, values: Floats) -> float | Floats:
    at = np.asarray(time_s, dtype=float)
    found = np.interp(at, times_s, values) if len(times_s) else np.zeros(at.shape)
    return found if at.ndim else float(found)


def fit_drift(points: Sequence[Point], knots: int = KNOTS) -> Drift:
    """The drift of one session, in any order of points.

    Before the first and after the last time of a repeated network it stays what it is there. Networks with one pass
    tell nothing.
    """
    nothing = Drift(*(np.empty(0) for _ in range(3)))
    model = _model(points, knots)
    if model is None:
        return nothing
    weights = np.full(len(model.y), 1 / max(float(np.var(model.y)), 1e-12))
    tau2, starts = 0.0, list(START)
    fit = None
    for _ in range(ROUNDS):
        fit = _fit(model, weights, starts)
        starts = [tuple(fit.logs)]
        squares = fit.residuals**2 * len(model.y) / max(1.0, model.freedom - fit.spent)
        tau2 = _extra_variance(squares, model.sigma2)
        variance = model.sigma2 + tau2
        weights = (TAIL_FREEDOM + 1) / (TAIL_FREEDOM + squares / variance) / variance
    fit = _fit(model, weights, starts)
    noise = math.sqrt(float(np.median(model.sigma2)) + tau2)
    if fit.gain < PAYS:
        return Drift(nothing.times_s, nothing.log_factors, nothing.stderrs, fit.gain, noise)
    everywhere = _hats(np.array([point.time_s for point in points]), model.times_s)
    centre = np.asarray(everywhere.mean(axis=0)).ravel()
    centring = np.eye(len(centre)) - centre
    covariance = centring @ fit.covariance @ centring.T
    return Drift(
        model.times_s,
        centring @ fit.values,
        np.sqrt(np.maximum(np.diag(covariance), 0)),
        fit.gain,
        noise,
    )


class _Model(NamedTuple):
    y: Floats
    """Shape (n,): log-latencies of networks with several passes."""
    sigma2: Floats
    networks: sparse.csr_array
    """Shape (networks, n): 1 where the point is the network's."""
    hats: sparse.csr_array
    """Shape (n, knots): d at the points, from d at the knots."""
    times_s: Floats
    priors: Floats
    """Shape (3, knots, knots): covariances of d at the knots, each for a variance of 1; 0 at the first knot."""
    freedom: int


def _model(points: Sequence[Point], knots: int) -> _Model | None:
    """None where nothing is repeated at two times."""
    of: dict[Hashable, list[int]] = {}
    for number, point in enumerate(points):
        if math.isfinite(point.log_ms) and math.isfinite(point.time_s):
            of.setdefault(point.network, []).append(number)
    repeated = [numbers for numbers in of.values() if len(numbers) > 1]
    rows = [number for numbers in repeated for number in numbers]
    network = np.repeat(np.arange(len(repeated)), [len(numbers) for numbers in repeated])
    times = np.array([points[row].time_s for row in rows])
    freedom = len(rows) - len(repeated)
    if freedom < 2 or np.ptp(times) <= 0:
        return None
    distinct = np.unique(times)
    places = np.linspace(0, len(distinct) - 1, min(knots, len(distinct))).round().astype(int)
    times_s = distinct[np.unique(places)]
    sigma = np.array([points[row].sigma for row in rows], dtype=float)
    t = (times_s - times_s[0]) / (times_s[-1] - times_s[0])
    lower, upper = np.minimum.outer(t, t), np.maximum.outer(t, t)
    return _Model(
        np.array([points[row].log_ms for row in rows]),
        np.where(np.isfinite(sigma), sigma, 0.0) ** 2,
        sparse.csr_array((np.ones(len(rows)), (network, np.arange(len(rows)))), shape=(len(repeated), len(rows))),
        _hats(times, times_s),
        times_s,
        np.stack([np.outer(t, t), lower**2 * (3 * upper - lower) / 6, lower]),
        freedom,
    )


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
    gain: float
    values: Floats
    """Of d at the knots, shape (knots,)."""
    covariance: Floats
    residuals: Floats
    spent: float
    """Degrees of freedom that d takes."""


def _fit(model: _Model, weights: Floats, starts: Sequence[Sequence[float]]) -> _Fit:
    """Maximum restricted likelihood of the three variances, with the noise's profiled out.

    With M = W - W Z (Z' W Z)^-1 Z' W, which takes the networks' levels out, A = H' M H and b = H' M y:
    -2 log L = (n - networks) log phi + log |I + P A|,  (n - networks) phi = y' M y - b' P (I + A P)^-1 b.
    """
    z, h, y = model.networks, model.hats, model.y
    totals = z @ weights
    sums = z @ sparse.diags_array(weights) @ h
    means = (z @ (weights * y)) / totals
    centred = y - z.T @ means
    a = (h.T @ sparse.diags_array(weights) @ h - sums.T @ sparse.diags_array(1 / totals) @ sums).toarray()
    b = h.T @ (weights * centred)
    square = float(centred @ (weights * centred))
    freedom, eye = model.freedom, np.eye(len(a))

    def solve(logs: Floats) -> tuple[float, Floats, Floats, Floats, float]:
        prior = np.tensordot(np.exp(logs), model.priors, 1)
        factor = linalg.lu_factor(eye + a @ prior, check_finite=False)
        determinant = float(np.sum(np.log(np.abs(np.diag(factor[0])))))
        alpha = linalg.lu_solve(factor, b, check_finite=False)
        phi = max((square - float(b @ prior @ alpha)) / freedom, 1e-12 * square / freedom + 1e-300)
        return freedom * math.log(phi) + determinant, prior, alpha, factor, phi

    def loss(logs: Floats) -> tuple[float, Floats]:
        value, _, alpha, factor, phi = solve(logs)
        inner = linalg.lu_solve(factor, a, check_finite=False)
        traces = np.einsum("ij,kji->k", inner, model.priors)
        return value, np.exp(logs) * (traces - (model.priors @ alpha) @ alpha / phi)

    # Without noise there is nothing to weigh: the smallest of variances keeps the logarithm finite.
    none = freedom * math.log(square / freedom + 1e-300)
    found = min(
        (optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=BOUNDS) for start in starts),
        key=lambda result: float(result.fun),
    )
    _, prior, alpha, factor, phi = solve(found.x)
    values = prior @ alpha
    # Given the levels' own uncertainty: (P^-1 + A)^-1 phi = P (I + A P)^-1 phi.
    inverse = linalg.lu_solve(factor, eye, check_finite=False)
    covariance = phi * prior @ inverse
    rest = y - h @ values
    residuals = rest - z.T @ ((z @ (weights * rest)) / totals)
    spent = float(np.trace(inverse @ a @ prior))
    return _Fit(found.x, none - float(found.fun), values, covariance, residuals, spent)


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
