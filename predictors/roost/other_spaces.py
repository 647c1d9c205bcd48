"""What labels of a device in another search space say of the space that is predicted: further components of its prior.

Labels in the other space condition the joint prior (`joint_prior.py`). The part of each component that belongs to the
predicted space becomes a few Gaussians, whose level in milliseconds is known, too. They differ in how much the two
spaces may disagree. They stand beside the components that know nothing of the other space, and the evidence of the
labels in the predicted space weighs all of them. So nothing has to be assumed about how much the other space may say,
except where there are no labels yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from latlab.predictors.base import FloatArray, OtherSpace
from latlab.predictors.common.blas_threads import one_thread
from latlab.predictors.common.log_latency import log_labels
from latlab.predictors.roost.joint_prior import are_related, joint_prior
from latlab.predictors.roost.posterior import condition_each
from latlab.predictors.roost.prior import Component, SyntheticPrior, mixture, synthetic_prior
from latlab.search_spaces import SearchSpace

__all__ = ["LEAST_LABELS", "informed", "marginals"]

INFLATED = 0.05
"""Relative standard deviation that is added to labels of the other space: misfit that the other space does not feel."""
DISAGREEMENT = ((0.15, 0.15), (0.4, 0.5))
"""How far the two spaces may disagree, each with the same prior weight: the relative standard deviation of the level,
and the covariance of the table as a share of that within a cluster of synthetic devices."""
MOST = 6
"""Most components of the joint prior that go on."""
LEAST_LABELS, MOST_LABELS = 3, 200
"""Fewest labels of another space that are used, because fewer hardly say what kind of device it is, and most: more of
them say little of this space."""


def informed(space: SearchSpace, others: Sequence[OtherSpace]) -> tuple[tuple[Component, ...], dict[str, int]]:
    """Return components for `space` that labels in other spaces give, with weights that sum to 1.

    The number of labels that are used of each space comes with them, by the space's name. Each of several spaces has
    the same share of the weight. Spaces with too few labels, or that have little in common with `space`, are left out.

    Raises:
        ValueError: see `Predictor.use_other_spaces`.
    """
    components: list[Component] = []
    used: dict[str, int] = {}
    for one in others:
        labels = log_labels(one.genes, one.latency_ms, one.stderr_ms)
        genes = one.space.genes(one.genes)
        # Constant networks may be folded to nothing, and then say nothing of any other.
        some = np.flatnonzero(~one.space.constant(genes))
        if len(some) < LEAST_LABELS or one.space == space or not are_related(one.space, space):
            continue
        some = some[np.linspace(0, len(some) - 1, min(len(some), MOST_LABELS)).round().astype(int)]
        features = one.space.features(genes[some]) / synthetic_prior(one.space).scale
        joint = joint_prior(one.space, space)
        with one_thread():
            components += marginals(joint, synthetic_prior(space), features, *(values[some] for values in labels))
        used[one.space.name] = len(some)
    return tuple(replace(one, weight=one.weight / len(used)) for one in components), used


def marginals(
    joint: SyntheticPrior, own: SyntheticPrior, features: FloatArray, log_latency: FloatArray, variance: FloatArray
) -> list[Component]:
    """Return components for the own space from n labels in the other; their weights sum to 1.

    Args:
        joint: the prior of both spaces, the other first.
        own: the prior of the own space.
        features: scaled features of the labelled networks of the other space, shape (n, d_other).
        log_latency: logarithms of the labels in ms, shape (n,).
        variance: known variances of these, shape (n,).
    """
    columns = features.shape[1]
    beside = np.zeros((len(features), len(joint.scale) - columns))
    each = condition_each(
        mixture(joint, []), np.concatenate([features, beside], axis=1), log_latency, variance + INFLATED**2
    )
    likely = sorted(each, key=lambda one: -one[0])[:MOST]
    total = sum(weight for weight, _, _ in likely) * len(DISAGREEMENT)
    found = []
    for weight, mean, covariance in likely:
        level = float((own.sample @ mean[columns:]).mean())
        table, known = mean[columns:] / level, covariance[columns:, columns:] / level**2
        for of_level, share in DISAGREEMENT:
            wider = known + of_level**2 * np.outer(table, table) + share * own.pooled
            found.append(Component("other space", table, wider, weight / total, (1.0,), level))
    return found
