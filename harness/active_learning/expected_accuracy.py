"""How accurate a predictor expects to be over a space: now, after more labels, and if its fit were exact.

The latencies of a sample of the space are drawn from the posterior, jointly: f = m exp(a + e), with m the prediction, a
the error of the fit (Gaussian, with the posterior's covariance, so that errors of similar networks are similar), and e
what no fit explains, independent for each network. Each draw has a rank correlation with m, and a share within x %; the
means over the draws are what to expect, and their quantiles say how sure that is. None of it needs a label that is not
there, so it can be said before a network is measured how much it will bring.

The truth is meant, not one more label: the standard errors that labels state are left out. What makes labels differ
without being stated cannot be told from a misfit, and is in e.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlab.predictors import Predictor
from latlab.predictors.acquisition import Outlook, outlook
from latlab.predictors.base import FloatArray, IntArray
from latlab.search_spaces import Architecture

__all__ = ["Expected", "ExpectedAccuracy", "expected_accuracy"]

DRAWS = 200
"""Number of draws from the posterior: the mean rank correlation is then known to a few thousandths."""
RANGE = (5.0, 95.0)
"""Percentiles of the draws that are given as the range of an expectation."""


@dataclass(frozen=True)
class Expected:
    """What to expect of one figure of accuracy."""

    value: float
    low: float
    high: float
    """In nine of ten draws the figure is from `low` to `high`."""


@dataclass(frozen=True)
class ExpectedAccuracy:
    """The accuracy of d draws over r networks."""

    spearman_of_draws: FloatArray
    """Rank correlation between truth and prediction, shape (d,)."""
    errors: FloatArray
    """Relative errors of the predictions, |m - f| / f, shape (d, r)."""

    @property
    def spearman(self) -> Expected:
        """The rank correlation over the space."""
        return _expected(self.spearman_of_draws)

    def within(self, percent: float) -> Expected:
        """Return the percentage of the networks that are predicted to within so many percent of the truth."""
        return _expected(100 * (self.errors <= percent / 100).mean(axis=1))


def _expected(draws: FloatArray) -> Expected:
    low, high = np.percentile(draws, RANGE)
    return Expected(float(draws.mean()), float(low), float(high))


def expected_accuracy(
    predictor: Predictor,
    reference: IntArray,
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
        candidates: genes of networks that may be measured, for `more`.
        pending: networks that are being measured; with `more`, they count as measured.
        more: number of further labels, chosen as `acquisition.choose` does; 0 for what is known now.
        exact: as if the fit were exact, so that only what no fit explains is left.
        seed: seed of the draws. Expectations of one seed use the same random numbers, so their differences are exact.
    """
    rng = np.random.default_rng(seed)
    none = reference[:0]
    asked = outlook(predictor, none if candidates is None else candidates, reference, more, pending if more else ())
    prediction = predictor.predict(reference)
    total = np.log1p((prediction.std_ms / prediction.mean_ms) ** 2)
    of_fit = np.einsum("nk,nk->n", asked.reference, asked.reference)
    # Predictors scale their variances by what they have found on the labels. The posterior is scaled alike.
    scale = total / (of_fit + predictor.noise_variance)
    unexplained = np.sqrt(np.maximum(total - scale * (of_fit + predictor.stated_noise_variance), 0))
    learnt, unknown = _split(asked)
    normal = rng.standard_normal((DRAWS, 2, unknown.shape[1]))
    noise = rng.standard_normal((DRAWS, len(reference)))
    scale = np.sqrt(scale)
    log_prediction = np.log(prediction.mean_ms) + scale * (normal[:, 0] @ learnt.T)
    log_truth = log_prediction + scale * (normal[:, 1] @ unknown.T)
    if exact:
        log_prediction = log_truth
    log_truth = log_truth + unexplained * noise
    return ExpectedAccuracy(_rank_correlations(log_prediction, log_truth), np.abs(np.expm1(log_prediction - log_truth)))


def _split(asked: Outlook) -> tuple[FloatArray, FloatArray]:
    """Return roots of what the coming labels will tell of the fit's error, and of what they will leave unknown."""
    unknown = asked.reference @ asked.shrunk
    values, vectors = np.linalg.eigh(np.eye(len(asked.shrunk)) - asked.shrunk @ asked.shrunk.T)
    return asked.reference @ (vectors * np.sqrt(np.clip(values, 0, None))), unknown


def _rank_correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Spearman's correlation of each row of a with that row of b; equal values are ranked in any order."""
    ranks = [np.argsort(np.argsort(one, axis=1), axis=1) for one in (a, b)]
    first, second = (one - (one.shape[1] - 1) / 2 for one in ranks)
    return np.asarray((first * second).sum(axis=1) / (first**2).sum(axis=1))
