"""The posterior over cost tables, given labels of the target device: a mixture of Gaussians, and its two moments.

For component k with mean mu and covariance S, scale s and noise sigma, and n labels with features Phi (n, d):

    log t = log(Phi w) + e,   w = c u,   u ~ N(mu, s^2 S + L^2 mu mu'),   e_i ~ N(0, sigma^2 h_i / g_i + v_i)

c is the geometric mean of the ratios of the labels to what mu predicts, L lets the level move from there, v_i is the
known variance of label i (its squared relative standard error), and h_i = (1 + (m / t_i)^2) / 2 with m the median label
makes half of the noise of a typical network absolute: what takes a hundredth of the typical latency must not be fitted
to some percent of its own. The model is linear in w except for the logarithm, which two Gauss-Newton steps at a middle
sigma linearise at the posterior mean: with f = Phi w there, log t = log f + (Phi / f)(w - w_f).
The rest is a Gaussian linear model (Rasmussen and Williams, 2006, chapter 2), computed in the space of the labels (n
x n) or of the tables (rank x rank), whichever is smaller. The weight of (k, s, sigma) is its tempered evidence times
its prior (Laplace's approximation).

Outliers are discounted by Student-t noise as a scale mixture. g_i ~ Gamma(nu / 2, nu / 2) is replaced by its
expectation under the posterior of the round before (EM; Lange, Little and Taylor, JASA 1989), shared by all components.

The mixture is collapsed to its mean and covariance in the space of tables in milliseconds, so that a prediction costs
one product of features and table, and users can read the fitted table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import logsumexp

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.roost.prior import LEAST, Component

__all__ = ["LEVEL", "NOISES", "Posterior", "absolute_share", "condition", "condition_each"]

NOISES = np.array([0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
"""Values of sigma: relative noise that the standard errors of labels leave out, and misfit of the model."""
COARSE = np.arange(1, 7, 2)
"""Positions in `NOISES` at which components are compared first."""
NARROW = 20
"""From so many labels on, only three neighbouring values of sigma are considered: the labels tell it well enough."""
TYPICAL_NOISE, NOISE_WIDTH = 0.02, 1.0
"""Median and logarithmic standard deviation of sigma's prior."""
SCALE_WIDTH = 0.8
"""Logarithmic standard deviation of s around the middle of a component's scales."""
LEVEL = 1.0
"""L, the relative standard deviation of the level around the mean ratio of the labels."""
TEMPERATURE = 1.5
"""Temperature: evidence is raised to 1 / this, because it takes components for exact and so chooses one too early."""
STEPS = 2
"""Number of Gauss-Newton steps after the first linearisation, which is at the prior mean."""
NU = 4.0
"""Degrees of freedom of the noise."""
ROUNDS, SURPRISING = 3, 0.2
"""Largest number of reweightings; one is enough if no label has a precision below the second number."""
PRUNED = 64
"""Components are compared by that many labels; only the best are fitted to all."""
KEPT, KEPT_OF_MANY, UNLIKELY = 12, 4, 1e-3
"""At most so many components are fitted in full (the second number: to more than `PRUNED` labels), and none whose
tempered evidence is this share of the best one's."""
NEGLIGIBLE = 1e-6
"""Weight below which a scale of a component is left out of the moments."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """The mean and covariance of the target's cost table, in ms per unit of (scaled) feature, and the noise."""

    mean: FloatArray
    covariance: FloatArray
    noise: float
    """Posterior mean of sigma^2."""
    precision: FloatArray
    """g of each label, shape (n,): 1 for an ordinary one, near 0 for an outlier."""
    weights: FloatArray
    """Posterior weight of each component, shape (components,)."""
    left_out_mean: FloatArray
    """Mean log-latency of each label predicted from all the others, at the weights and noise of all, shape (n,)."""
    left_out_variance: FloatArray
    """Variance of the same predictions without the noise of a label, shape (n,)."""


def condition(
    components: Sequence[Component],
    features: FloatArray,
    log_latency: FloatArray,
    label_variance: FloatArray,
    *,
    robust: bool = True,
) -> Posterior:
    """Return the posterior after n >= 1 labels.

    Args:
        components: the prior (`prior.mixture`).
        features: scaled features of the labelled architectures, shape (n, d).
        log_latency: logarithms of the labels in ms, shape (n,).
        label_variance: known variances of these, shape (n,).
        robust: discount outliers.
    """
    fits, weights, precision = _fitted(components, features, log_latency, label_variance, robust)
    return _collapsed(fits, weights, len(components), precision)


def condition_each(
    components: Sequence[Component],
    features: FloatArray,
    log_latency: FloatArray,
    label_variance: FloatArray,
    *,
    robust: bool = True,
) -> list[tuple[float, FloatArray, FloatArray]]:
    """Return the posterior weight of each component that has any, and the mean and covariance of its tables in ms.

    Arguments are those of `condition`.
    """
    found: dict[int, list[tuple[float, FloatArray, FloatArray]]] = {}
    for fit, weight in zip(*_fitted(components, features, log_latency, label_variance, robust)[:2], strict=True):
        for k in np.unique(fit.component):
            own = np.where((fit.component == k)[:, None], weight, 0)
            found.setdefault(int(k), []).append((float(own.sum()), *fit.moments(own)))
    each = []
    for parts in found.values():
        share = sum(weight for weight, _, _ in parts)
        if share > NEGLIGIBLE:
            mean = np.sum([one for _, one, _ in parts], axis=0) / share
            second = np.sum([one for _, _, one in parts], axis=0) / share
            each.append((share, mean, second - np.outer(mean, mean)))
    return each


def _fitted(
    components: Sequence[Component],
    features: FloatArray,
    log_latency: FloatArray,
    label_variance: FloatArray,
    robust: bool,
) -> tuple[list[_Fits], list[FloatArray], FloatArray]:
    """Return the fits of all components with a chance, the weights of their parts, and g of each label."""
    n = len(log_latency)
    floor = absolute_share(log_latency)
    everything = _projected(components, features)
    # Labels are taken evenly over all, because the first ones may be one batch of a design.
    some = np.linspace(0, n - 1, min(n, PRUNED)).round().astype(int)
    middle = [(k, len(component.scales) // 2) for k, component in enumerate(components)]
    few = _Projected(everything.means[:, some], everything.columns[:, some])
    first = _Fits(components, few, middle, log_latency[some], label_variance[some], floor[some], COARSE).evidence
    best = first.max(axis=1)
    chance = np.exp((best - best.max()) / TEMPERATURE)
    likely = np.argsort(-chance)[: KEPT if n <= PRUNED else KEPT_OF_MANY]
    kept = sorted(int(k) for k in likely if chance[k] > UNLIKELY)
    noises = np.arange(len(NOISES))
    if n >= NARROW:
        typical = int(COARSE[np.argmax(first[likely[0]])])
        noises = noises[max(typical - 1, 0) : typical + 2]
    pairs = [[(k, scale) for scale in range(len(components[k].scales))] for k in kept]
    # All at once are quicker where arrays are small; one after another, large ones fit into memory.
    parts = pairs if n > PRUNED else [[pair for own in pairs for pair in own]]
    precision = np.ones(n)

    def fitted(shape: FloatArray) -> tuple[list[_Fits], list[FloatArray]]:
        fits = [_Fits(components, everything, part, log_latency, label_variance, shape, noises) for part in parts]
        evidence = np.concatenate([fit.evidence.ravel() for fit in fits]) / TEMPERATURE
        split = np.split(np.exp(evidence - logsumexp(evidence)), np.cumsum([fit.evidence.size for fit in fits])[:-1])
        return fits, [part.reshape(fit.evidence.shape) for part, fit in zip(split, fits, strict=True)]

    fits, weights = fitted(floor)
    for _ in range(ROUNDS if robust else 0):
        precision = _reweighted(fits, weights, floor, label_variance)
        fits, weights = fitted(floor / precision)
        if precision.min() > SURPRISING:
            break
    return fits, weights, precision


def absolute_share(log_latency: FloatArray) -> FloatArray:
    """Return h_i of each label, shape (n,): its noise variance over that of a label of the median latency."""
    return np.asarray((1 + np.exp(2 * (np.median(log_latency) - log_latency))) / 2)


@cache
def _log_prior(scales: tuple[float, ...]) -> FloatArray:
    """Return the logarithms of the prior weights of the scales of a component and of `NOISES`: (scales, noises)."""
    logs = np.log(scales)
    grid = -0.5 * ((logs - logs.mean()) / SCALE_WIDTH) ** 2
    sigma = -0.5 * (np.log(NOISES / TYPICAL_NOISE) / NOISE_WIDTH) ** 2
    return np.asarray((grid - logsumexp(grid))[:, None] + sigma - logsumexp(sigma))


@dataclass(frozen=True, slots=True)
class _Projected:
    """What components say of the labels' architectures, up to a factor."""

    means: FloatArray
    """Features times the mean of each component, shape (components, n)."""
    columns: FloatArray
    """Features times a root of each covariance, shape (components, n, rank), 0 beyond the rank of a component."""


def _projected(components: Sequence[Component], features: FloatArray) -> _Projected:
    columns = np.zeros((len(components), len(features), max(component.root.shape[1] for component in components)))
    for component, own in zip(components, columns, strict=True):
        own[:, : component.root.shape[1]] = features @ component.root
    return _Projected(np.array([component.mean for component in components]) @ features.T, columns)


class _Fits:
    """Components conditioned on the labels, for some of their scales and all noises: shapes (pairs, noises, ...).

    Args:
        components: all of the prior.
        projected: all of them, at the labels.
        pairs: positions of the components to condition, each with that of one of its scales.
        shape: h_i / g_i of each label, which sigma^2 multiplies.
        noises: the positions in `NOISES` to fit.
    """

    def __init__(
        self,
        components: Sequence[Component],
        projected: _Projected,
        pairs: Sequence[tuple[int, int]],
        log_latency: FloatArray,
        label_variance: FloatArray,
        shape: FloatArray,
        noises: IntArray,
    ) -> None:
        self.component = np.array([k for k, _ in pairs])
        self.prior = [components[k] for k in self.component]
        self.scale = np.array([components[k].scales[i] for k, i in pairs])
        start = np.maximum(projected.means[self.component], LEAST)  # (pairs, n)
        self.level = np.exp(np.mean(log_latency - np.log(start), axis=1))
        known = np.array([one.level is not None for one in self.prior])
        self.level[known] = [one.level for one in self.prior if one.level is not None]
        self.moving = np.where(known, 0.0, LEVEL)
        prior = self.level[:, None] * projected.means[self.component]
        # The columns of a root of the prior covariance, and one more, which moves the level.
        columns = projected.columns[self.component] * (self.level * self.scale)[:, None, None]
        tall = np.concatenate([columns, (self.moving[:, None] * prior)[..., None]], axis=2)
        f = start * self.level[:, None]
        for _ in range(STEPS):
            design, rest = tall / f[..., None], log_latency - np.log(f) + (f - prior) / f
            noise = NOISES[noises[len(noises) // 2]] ** 2 * shape + label_variance
            moved = prior + (tall @ _mean(design, noise, rest)[..., None])[..., 0]
            f = np.maximum(moved, 0.3 * f)
        self.design, self.expected = tall / f[..., None], np.log(f) - (f - prior) / f
        self.rest = log_latency - self.expected
        self.sigma2 = NOISES[noises] ** 2
        self.noise = self.sigma2[:, None] * shape + label_variance
        self._solve()
        quadratic = np.einsum("an,abn->ab", self.rest, self.alpha)
        log_prior = np.array([np.log(components[k].weight) + _log_prior(components[k].scales)[i] for k, i in pairs])
        self.evidence = -0.5 * quadratic - 0.5 * self.log_determinant + log_prior[:, noises]

    def _solve(self) -> None:
        """Compute, with K = B B' + N: alpha = K^-1 rest, log |K|, the diagonal of K^-1, and B' alpha.

        B' alpha is the posterior mean in units of the columns of the prior's square root.
        """
        design, noise = self.design, self.noise
        n, rank = design.shape[-2:]
        self.by_labels = n <= rank
        if self.by_labels:
            covariance = np.repeat((design @ design.swapaxes(-1, -2))[:, None], len(noise), axis=1)
            covariance[..., np.arange(n), np.arange(n)] += noise
            self.inverse = np.linalg.inv(covariance)
            self.alpha = (self.inverse @ self.rest[:, None, :, None])[..., 0]
            self.log_determinant = np.linalg.slogdet(covariance)[1]
            self.inverse_diagonal = np.diagonal(self.inverse, axis1=-2, axis2=-1)
        else:
            weighted = design[:, None] / noise[:, :, None]
            inner = np.eye(rank) + design.swapaxes(-1, -2)[:, None] @ weighted
            self.inverse = np.linalg.inv(inner)
            half = weighted @ self.inverse
            projected = (self.rest[:, None, None] @ weighted)[:, :, 0]
            self.alpha = self.rest[:, None] / noise - (half @ projected[..., None])[..., 0]
            self.log_determinant = np.linalg.slogdet(inner)[1] + np.log(noise).sum(axis=-1)
            self.inverse_diagonal = 1 / noise - (half * weighted).sum(axis=-1)
        self.along = self.alpha @ design

    def moments(self, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the sums of w and of w w' over all pairs and noises, given their weights: shapes (d,) and (d, d)."""
        d = len(self.prior[0].mean)
        mean, second = np.zeros(d), np.zeros((d, d))
        for a in np.flatnonzero(weight.sum(axis=1) > NEGLIGIBLE):
            own, level = self.prior[a], self.level[a]
            centre, rank = level * own.mean, own.root.shape[1]
            root = np.concatenate([own.root * (level * self.scale[a]), self.moving[a] * centre[:, None]], axis=1)
            used = np.append(np.arange(rank), self.design.shape[-1] - 1)
            tables = centre + self.along[a][:, used] @ root.T
            inverse = np.tensordot(weight[a], self.inverse[a], axes=1)
            if self.by_labels:
                across = self.design[a][:, used] @ root.T
                prior = (level * self.scale[a]) ** 2 * own.covariance + self.moving[a] ** 2 * np.outer(centre, centre)
                second += weight[a].sum() * prior - across.T @ inverse @ across
            else:
                second += root @ inverse[np.ix_(used, used)] @ root.T
            mean += weight[a] @ tables
            second += (tables * weight[a][:, None]).T @ tables
        return mean, second


def _mean(design: FloatArray, noise: FloatArray, rest: FloatArray) -> FloatArray:
    """Return B' (B B' + N)^-1 rest, with B of shape (pairs, n, rank): shape (pairs, rank)."""
    n, rank = design.shape[-2:]
    across = design.swapaxes(-1, -2)
    if n <= rank:
        covariance = design @ across
        covariance[:, np.arange(n), np.arange(n)] += noise
        return np.asarray((across @ np.linalg.solve(covariance, rest[..., None]))[..., 0])
    weighted = across / noise
    return np.asarray(np.linalg.solve(np.eye(rank) + weighted @ design, weighted @ rest[..., None])[..., 0])


def _reweighted(
    fits: Sequence[_Fits], weights: Sequence[FloatArray], floor: FloatArray, label_variance: FloatArray
) -> FloatArray:
    """Return E[g_i], shape (n,), given the posterior of each label's error in units of its noise."""
    squared = np.zeros(fits[0].noise.shape[-1])
    for fit, weight in zip(fits, weights, strict=True):
        ordinary = fit.sigma2[:, None] * floor + label_variance
        variance = 1 / fit.inverse_diagonal - fit.noise + ordinary
        error2 = (fit.alpha / fit.inverse_diagonal) ** 2
        certain = np.clip((error2 / variance - 4) / 12, 0, 1)
        squared += np.einsum("ab,abn->n", weight, error2 / (variance ** (1 - certain) * ordinary**certain))
    return np.asarray((NU + 1) / (NU + squared))


def _collapsed(fits: Sequence[_Fits], weights: Sequence[FloatArray], count: int, precision: FloatArray) -> Posterior:
    """Return the first two moments of the mixture, of the table and of each label left out."""
    d, noise = len(fits[0].prior[0].mean), 0.0
    mean, second = np.zeros(d), np.zeros((d, d))
    left_mean, left_second = np.zeros(len(precision)), np.zeros(len(precision))
    by_component = np.zeros(count)
    for fit, weight in zip(fits, weights, strict=True):
        np.add.at(by_component, fit.component, weight.sum(axis=1))
        noise += float((weight.sum(axis=0) * fit.sigma2).sum())
        table, square = fit.moments(weight)
        mean += table
        second += square
        variance = 1 / fit.inverse_diagonal
        left = (fit.expected + fit.rest)[:, None] - fit.alpha * variance
        variance = np.maximum(variance - fit.noise, 0)
        left_mean += np.einsum("ab,abn->n", weight, left)
        left_second += np.einsum("ab,abn->n", weight, variance + left**2)
    return Posterior(
        mean=mean,
        covariance=second - np.outer(mean, mean),
        noise=noise,
        precision=precision,
        weights=by_component,
        left_out_mean=left_mean,
        left_out_variance=left_second - left_mean**2,
    )
