"""The posterior over cost tables, given labels of the target device: a mixture of Gaussians, and its two moments.

For component k with mean mu and covariance S, scale s and noise sigma, and n labels with features Phi (n, d):

    log t = log(Phi w) + e,   w = c u,   u ~ N(mu, s^2 S + L^2 mu mu'),   e_i ~ N(0, sigma^2 / g_i + v_i)

c is the geometric mean of the ratios of the labels to what mu predicts, L lets the level move from there, v_i is the
known variance of label i (its squared relative standard error). The model is linear in w except for the logarithm,
which two Gauss-Newton steps linearise at the posterior mean: with f = Phi w there, log t = log f + (Phi / f)(w - w_f).
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

import numpy as np
from scipy.special import logsumexp

from latlab.predictors.base import FloatArray
from latlab.predictors.roost.prior import LEAST, Component

__all__ = ["LEVEL", "NOISES", "Posterior", "condition"]

NOISES = np.array([0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
"""Values of sigma: relative noise that the standard errors of labels leave out, and misfit of the model."""
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
ROUNDS = 2
"""Number of fits, the first with equal weights of the labels, the others with outliers discounted."""
PRUNED, KEPT = 64, 8
"""With more than `PRUNED` labels, that many of them select the `KEPT` best components; only these are fitted to all."""
NEGLIGIBLE = 1e-4
"""Weight below which a component is left out of the moments."""


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
    """Variance of the same predictions, shape (n,)."""


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
    kept = list(range(len(components)))
    if len(log_latency) > PRUNED:
        # Labels are taken evenly over all, because the first ones may be one batch of a design.
        some = np.linspace(0, len(log_latency) - 1, PRUNED).round().astype(int)
        first = [_Fit(c, features[some], log_latency[some], label_variance[some], np.ones(PRUNED)) for c in components]
        best = sorted(kept, key=lambda k: -float(logsumexp(first[k].evidence / TEMPERATURE)))
        kept = best[:KEPT]
    precision = np.ones(len(log_latency))
    fits, weights = _fits(components, kept, features, log_latency, label_variance, precision)
    for _ in range(ROUNDS - 1 if robust else 0):
        precision = _reweighted(fits, weights)
        fits, weights = _fits(components, kept, features, log_latency, label_variance, precision)
    return _collapsed(fits, weights, kept, len(components), precision)


def _fits(
    components: Sequence[Component],
    kept: Sequence[int],
    features: FloatArray,
    log_latency: FloatArray,
    label_variance: FloatArray,
    precision: FloatArray,
) -> tuple[list[_Fit], list[FloatArray]]:
    """Fit the components to keep, and return the fits and their posterior weights, each of shape (scales, noises)."""
    fits = [_Fit(components[k], features, log_latency, label_variance, precision) for k in kept]
    evidence = np.concatenate([fit.evidence.ravel() for fit in fits]) / TEMPERATURE
    split = np.split(np.exp(evidence - logsumexp(evidence)), np.cumsum([fit.evidence.size for fit in fits])[:-1])
    return fits, [part.reshape(fit.evidence.shape) for part, fit in zip(split, fits, strict=True)]


class _Fit:
    """A component conditioned on the labels, for all its scales and noises: arrays of shape (scales, noises, ...)."""

    def __init__(
        self,
        component: Component,
        features: FloatArray,
        log_latency: FloatArray,
        label_variance: FloatArray,
        precision: FloatArray,
    ) -> None:
        scales = np.array(component.scales)
        start = np.maximum(features @ component.mean, LEAST)
        level = float(np.exp(np.mean(log_latency - np.log(start))))
        self.centre = level * component.mean
        # `root` is a square root of the prior covariance; one more column, `self.level`, moves the level.
        root = level * component.root
        self.scales, self.root, self.level = scales, root, LEVEL * self.centre
        self.sigma2 = NOISES**2
        noise = self.sigma2[:, None] / precision + label_variance
        self.noise = noise
        self.ordinary = self.sigma2[:, None] + label_variance  # the noise of labels that are no outliers
        prior = features @ self.centre
        columns = np.concatenate([features @ root, (features @ self.level)[:, None]], axis=1)
        stretch = np.concatenate([np.repeat(scales[:, None], root.shape[1], axis=1), np.ones((len(scales), 1))], axis=1)
        tall = columns * stretch[:, None, :]  # (scales, n, rank)
        f = np.broadcast_to(start * level, (len(scales), len(NOISES), len(log_latency)))
        for step in range(STEPS + 1):
            self.design = tall[:, None] / f[..., None]
            self.rest = log_latency - np.log(f) + (f - prior) / f
            self.expected = np.log(f) - (f - prior) / f
            self._solve()
            if step < STEPS:
                moved = prior + np.einsum("abr,anr->abn", self.along, tall)
                f = np.maximum(moved, 0.3 * f)
        grid = -0.5 * (np.log(scales / np.exp(np.log(scales).mean())) / SCALE_WIDTH) ** 2
        sigma = -0.5 * (np.log(NOISES / TYPICAL_NOISE) / NOISE_WIDTH) ** 2
        prior_log = np.log(component.weight) + (grid - logsumexp(grid))[:, None] + sigma - logsumexp(sigma)
        self.evidence = -0.5 * (self.rest * self.alpha).sum(axis=-1) - 0.5 * self.log_determinant + prior_log

    def _solve(self) -> None:
        """Compute, with K = B B' + N: alpha = K^-1 rest, log |K|, the diagonal of K^-1, and B' alpha.

        B' alpha is the posterior mean in units of the columns of the prior's square root.
        """
        design, noise = self.design, self.noise
        n, rank = design.shape[-2:]
        if n <= rank:
            covariance = design @ design.swapaxes(-1, -2)
            covariance[..., np.arange(n), np.arange(n)] += noise
            inverse = np.linalg.inv(covariance)
            self.alpha = np.einsum("abij,abj->abi", inverse, self.rest)
            self.log_determinant = np.linalg.slogdet(covariance)[1]
            self.inverse_diagonal = np.diagonal(inverse, axis1=-2, axis2=-1)
            self.shrunk = None
        else:
            weighted = design / noise[:, :, None]
            inner = np.eye(rank) + design.swapaxes(-1, -2) @ weighted
            self.shrunk = np.linalg.inv(inner)
            half = weighted @ self.shrunk
            projected = np.einsum("abnr,abn->abr", weighted, self.rest)
            self.alpha = self.rest / noise - np.einsum("abnr,abr->abn", half, projected)
            self.log_determinant = np.linalg.slogdet(inner)[1] + np.log(noise).sum(axis=-1)
            self.inverse_diagonal = 1 / noise - (half * weighted).sum(axis=-1)
        self.along = np.einsum("abnr,abn->abr", design, self.alpha)

    def moments(self, a: int, b: int) -> tuple[FloatArray, FloatArray]:
        """Return the posterior mean (d,) and covariance (d, d) of the table for scale `a` and noise `b`."""
        root = np.concatenate([self.root * self.scales[a], self.level[:, None]], axis=1)
        if self.shrunk is None:
            design = self.design[a, b]
            covariance = design @ design.T + np.diag(self.noise[b])
            shrunk = np.eye(design.shape[1]) - design.T @ np.linalg.solve(covariance, design)
        else:
            shrunk = self.shrunk[a, b]
        return self.centre + root @ self.along[a, b], root @ shrunk @ root.T


def _reweighted(fits: Sequence[_Fit], weights: Sequence[FloatArray]) -> FloatArray:
    """Return E[g_i], shape (n,), given the posterior of each label's error in units of its noise."""
    squared = np.zeros(fits[0].noise.shape[-1])
    for fit, weight in zip(fits, weights, strict=True):
        error2 = (fit.noise * fit.alpha) ** 2 + fit.noise - fit.noise**2 * fit.inverse_diagonal
        squared += np.einsum("ab,abn->n", weight, error2 / fit.ordinary)
    return np.asarray((NU + 1) / (NU + squared))


def _collapsed(
    fits: Sequence[_Fit], weights: Sequence[FloatArray], kept: Sequence[int], count: int, precision: FloatArray
) -> Posterior:
    """Return the first two moments of the mixture, of the table and of each label left out."""
    d = len(fits[0].centre)
    total, noise = 0.0, 0.0
    mean, second = np.zeros(d), np.zeros((d, d))
    left_mean, left_second = np.zeros(len(precision)), np.zeros(len(precision))
    by_component = np.zeros(count)
    for k, fit, weight in zip(kept, fits, weights, strict=True):
        by_component[k] = weight.sum()
        noise += float((weight.sum(axis=0) * fit.sigma2).sum())
        for a, b in np.argwhere(weight > NEGLIGIBLE):
            share = weight[a, b]
            table, covariance = fit.moments(a, b)
            total += share
            mean += share * table
            second += share * (covariance + np.outer(table, table))
            variance = 1 / fit.inverse_diagonal[a, b]
            left = fit.expected[a, b] + fit.rest[a, b] - fit.alpha[a, b] * variance
            left_mean += share * left
            left_second += share * (variance + left**2)
    mean, left_mean = mean / total, left_mean / total
    return Posterior(
        mean=mean,
        covariance=second / total - np.outer(mean, mean),
        noise=noise,
        precision=precision,
        weights=by_component,
        left_out_mean=left_mean,
        left_out_variance=left_second / total - left_mean**2,
    )
