"""How accurate a predictor expects to be over a space: now, after more labels, and if its fit were exact.

The latencies of a sample of the space are drawn from the posterior, jointly: f = m exp(a + e), with m the prediction, a
the error of the fit (Gaussian, with the posterior's covariance, so that errors of similar networks are similar), and e
what no fit explains, independent for each network: Student-t noise, and now and then a network that the predictor does
not understand at all. Each draw has a rank correlation with m, and a share within x %; the means over the draws are
what to expect, and their quantiles say how sure that is. None of it needs a label that is not there, so it can be said
before a network is measured how much it will bring.

The truth is meant, not one more label: the standard errors that labels state are left out. What makes labels differ
without being stated cannot be told from a misfit, and is in e.

Variances are scaled by the errors with which the labels are predicted from one another, because a posterior knows only
what its model can be wrong about. The constants were chosen on the columns of published tables that are no target of a
published task (20 of NAS-Bench-201, 12 of FBNet, three runs each): from ten labels on, 91 % of the expected rank
correlations were within .03 of the truth there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from latlab.predictors import Predictor
from latlab.predictors.acquisition import outlook
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.log_latency import CENTRAL, half_width
from latlab.search_spaces import Architecture

__all__ = ["Expected", "ExpectedAccuracy", "Labels", "expected_accuracy"]

DRAWS = 200
"""Number of draws from the posterior: the mean rank correlation is then known to a thousandth or two."""
RANGE = (5.0, 95.0)
"""Percentiles of the draws that are given as the range of an expectation."""
FREEDOM = 4.0
"""Degrees of freedom of the noise e, as in ROOST's likelihood."""
DIFFERENCES = 0.35
"""Share of the variance of a, apart from an error that all networks have in common, that is found in published tables:
a posterior that is collapsed from a mixture of devices is wider than that of the right one."""
IMAGINED, MOST_SURPRISE = 5.0, 6.0
"""Labels of ordinary error that stand beside the real ones in the scale of the variances; and the largest squared
error, in standard deviations, that counts there."""
SURPRISING = 2.5
"""Standard deviations from which a label is one that the predictor does not understand."""
SURPRISES, OF_LABELS = 1.0, 31.0
"""Imagined labels that stand beside the real ones in the share of such networks: so many of so many."""
DOUBT = 1.0
"""Standard deviation of the logarithm of what a rank correlation lacks to 1, between expectation and truth, beyond that
of the draws. With it the ranges held 89 % of the truths."""


@dataclass(frozen=True)
class Expected:
    """What to expect of one figure of accuracy."""

    value: float
    low: float
    high: float
    """In nine of ten runs the figure is from `low` to `high`."""


@dataclass(frozen=True)
class ExpectedAccuracy:
    """The accuracy of d draws over r networks."""

    spearman_of_draws: FloatArray
    """Rank correlation between truth and prediction, shape (d,)."""
    errors: FloatArray
    """Relative errors of the predictions, |m - f| / f, shape (d, r)."""
    doubt: FloatArray
    """Factors by which the truth may lack more or less to 1 than the draws do, shape (d,)."""

    @property
    def spearman(self) -> Expected:
        """The rank correlation over the space."""
        return _expected(self.spearman_of_draws, 1 - (1 - self.spearman_of_draws) * self.doubt)

    def within(self, percent: float) -> Expected:
        """Return the percentage of the networks that are predicted to within so many percent of the truth."""
        missed = (self.errors > percent / 100).mean(axis=1)
        odds = missed / np.maximum(1 - missed, 1e-9) * self.doubt
        return _expected(100 * (1 - missed), 100 / (1 + odds))


def _expected(draws: FloatArray, doubtful: FloatArray) -> Expected:
    low, high = np.percentile(np.clip(doubtful, -1, None), RANGE)
    return Expected(float(draws.mean()), float(low), float(high))


@dataclass(frozen=True)
class Labels:
    """What the labels say of a predictor that is fitted to them."""

    scale: float
    """Factor by which variances are larger than the predictor says."""
    surprises: float
    """Share of networks that it does not understand."""

    @classmethod
    def of(cls, predictor: Predictor, latency_ms: FloatArray, *, more: int = 0) -> Labels:
        """Return it, from the errors with which each label is predicted from the others.

        Args:
            predictor: fitted to the labels.
            latency_ms: the labels, in the order of the fit, shape (n,).
            more: further labels, taken for ordinary ones.
        """
        if len(latency_ms) < 2:
            return cls(1.0, SURPRISES / OF_LABELS)
        left_out = predictor.leave_one_out()
        variance = np.log1p((left_out.std_ms / left_out.mean_ms) ** 2)
        squared = np.log(latency_ms / left_out.mean_ms) ** 2 / variance
        n = len(latency_ms)
        return cls(
            float((IMAGINED + np.minimum(squared, MOST_SURPRISE).sum()) / (IMAGINED + n)),
            float((SURPRISES + (squared > SURPRISING**2).sum()) / (OF_LABELS + n + more)),
        )


def expected_accuracy(
    predictor: Predictor,
    reference: IntArray,
    labels: Labels,
    *,
    candidates: IntArray | None = None,
    pending: Sequence[Architecture] = (),
    more: int = 0,
    exact: bool = False,
    seed: int = 0,
) -> ExpectedAccuracy:
    """Return how accurate a fitted predictor expects to be.

    Args:
        predictor: a predictor that is fitted to at least one label.
        reference: genes of a sample of the space, shape (r, genes).
        labels: what the labels say of it.
        candidates: genes of networks that may be measured, for `more`.
        pending: networks that are being measured; they count as measured.
        more: number of further labels, chosen as `acquisition.choose` does; 0 for what is known now.
        exact: as if the fit were exact, so that only what no fit explains is left.
        seed: seed of the draws. Expectations of one seed use the same random numbers, so that they can be compared.
    """
    rng = np.random.default_rng(seed)
    asked = outlook(predictor, reference[:0] if candidates is None else candidates, reference, more, pending)
    prediction = predictor.predict(reference)
    total = np.log1p((prediction.std_ms / prediction.mean_ms) ** 2)
    of_fit = np.einsum("nk,nk->n", asked.reference, asked.reference)
    # Predictors scale their variances by what they have found on the labels. The posterior is scaled alike.
    scale = total / (of_fit + predictor.noise_variance)
    unexplained = np.maximum(total - scale * (of_fit + predictor.stated_noise_variance), 0)
    width = np.sqrt(scale * labels.scale)
    learnt, unknown = (width[:, None] * root for root in _split(asked.reference, asked.shrunk))
    of_unknown, of_learnt = (rng.standard_normal((DRAWS, root.shape[1])) for root in (unknown, learnt))
    rng = np.random.default_rng(seed + 1)  # so that the draws below do not depend on what is to come
    noise = np.sqrt(labels.scale * unexplained) * _student(rng, (DRAWS, len(reference)))
    spread = float(np.log(prediction.mean_ms).std())
    surprised = rng.random(noise.shape) < labels.surprises
    noise += spread * surprised * rng.standard_normal(noise.shape)
    log_prediction = np.log(prediction.mean_ms) + of_learnt @ learnt.T
    log_truth = log_prediction + of_unknown @ unknown.T
    if exact:
        log_prediction = log_truth
    log_truth = log_truth + noise
    return ExpectedAccuracy(
        _rank_correlations(log_prediction, log_truth),
        np.abs(np.expm1(log_prediction - log_truth)),
        np.exp(DOUBT * rng.standard_normal(DRAWS)),
    )


def _split(root: FloatArray, shrunk: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return roots of what the coming labels will tell of the fit's error, and of what they will leave unknown."""
    common = root.mean(axis=0)
    root = common + np.sqrt(DIFFERENCES) * (root - common)
    learnt = np.eye(len(shrunk)) - shrunk @ shrunk.T
    if not learnt.any():  # no labels are to come
        return root[:, :0], root
    values, vectors = np.linalg.eigh(learnt)
    return root @ (vectors * np.sqrt(np.clip(values, 0, None))), root @ shrunk


def _student(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Return Student-t noise whose central 90 % interval is that of a standard Gaussian."""
    return rng.standard_t(FREEDOM, shape) * float(special.ndtri((1 + CENTRAL) / 2) / half_width(FREEDOM))


def _rank_correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Spearman's correlation of each row of a with that row of b; equal values are ranked in any order."""
    ranks = [np.argsort(np.argsort(one, axis=1), axis=1) for one in (a, b)]
    first, second = (one - (one.shape[1] - 1) / 2 for one in ranks)
    return np.asarray((first * second).sum(axis=1) / (first**2).sum(axis=1))
