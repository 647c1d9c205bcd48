"""Networks whose output is constant, such as unconnected cells, on a runtime that folds them to nothing.

They are few, but what they take says nothing of the others, and one of them measured says nearly all of the others like
it. So a space has features of their own for them (`of_constant`). The labels of the other networks determine the cost
table; if it predicts much more for the constant ones than they take, they get a level of their own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray
from latlab.predictors.roost.posterior import Posterior

__all__ = ["are_folded", "with_own_level"]

FOLDED = 0.6
"""Constant networks are folded if they take less than this share of what the cost table predicts."""
SPREAD, LABELS = 0.5, 2.0
"""Prior standard deviation of the log-latency of folded networks, and the number of labels that it counts for."""


def are_folded(posterior: Posterior, features: FloatArray, log_latency: FloatArray) -> bool:
    """Return whether constant networks take much less than the cost table says, which does not know their labels.

    Args:
        features: their features, shape (k, d).
        log_latency: their labels, shape (k,).
    """
    expected = features @ posterior.mean
    return bool(np.median(np.exp(log_latency) / expected) < FOLDED)


def with_own_level(
    posterior: Posterior,
    columns: NDArray[np.bool_],
    features: FloatArray,
    constant: NDArray[np.bool_],
    log_latency: FloatArray,
) -> Posterior:
    """Return the posterior with a level for constant networks, which is the geometric mean of their labels.

    Args:
        posterior: that of the other labels.
        columns: the features that only constant networks have; the first of them is the same number for all of these.
        features: features of the constant ones among the labels, shape (k, d).
        constant: which labels are of constant networks, shape (n,).
        log_latency: all labels, shape (n,).
    """
    own = log_latency[constant]
    number, level = len(own), float(own.mean())
    spread = (LABELS * SPREAD**2 + float(((own - level) ** 2).sum())) / (LABELS + number - 1)
    mean, covariance = posterior.mean.copy(), posterior.covariance.copy()
    first = int(np.argmax(columns))
    mean[columns] = 0
    covariance[columns], covariance[:, columns] = 0, 0
    mean[first] = np.exp(level) / features[0, first]
    covariance[first, first] = np.expm1(spread * (1 + 1 / number)) * mean[first] ** 2

    def all_labels(of_others: FloatArray, of_own: FloatArray | float) -> FloatArray:
        found = np.empty(len(log_latency))
        found[~constant], found[constant] = of_others, of_own
        return found

    # Without its own label, the only one would be predicted from the prior spread around an unknown level.
    others = max(number - 1, 1)
    left = level if number == 1 else (own.sum() - own) / others
    return replace(
        posterior,
        mean=mean,
        covariance=covariance,
        precision=all_labels(posterior.precision, 1.0),
        left_out_mean=all_labels(posterior.left_out_mean, left),
        left_out_variance=all_labels(posterior.left_out_variance, spread * (1 + 1 / others)),
    )
