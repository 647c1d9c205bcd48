"""HELP's description of devices: an embedding from ten reference architectures, and labels on a common scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.common.log_latency import log_labels
from latlab.predictors.ridge import Ridge
from latlab.search_spaces import SearchSpace

__all__ = [
    "Scale",
    "SourcePool",
    "embedding",
    "impute",
    "is_reference",
    "label_scale",
    "measured_references",
    "source_pool",
]

LOW, SPAN = 0.05, 0.9
"""Smallest label of a source's pool, and the difference to the largest: labels are between 0.05 and 0.95."""
STOOD_IN = 80
"""Number of measurements of a source from which missing references are estimated: enough, and fast."""
LEVEL_VARIANCE = 100.0
"""Prior variance of a device's mean log-latency, which is unknown."""
PRIOR_DEVICES, PRIOR_DEVIATION = 2.0, 0.2
"""Prior of a device's deviations from the mean source: independent ones of 20 %, which count for two devices."""
TWO_POINTS = 3
"""Number of measurements from which both ends of the scale are fitted."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale of a device's labels: 0.05 + 0.9 (latency - low) / (high - low), latencies in ms."""

    low: float
    high: float

    def labels(self, latency: FloatArray) -> FloatArray:
        """Return the labels of latencies in ms."""
        return LOW + SPAN * (latency - self.low) / (self.high - self.low)

    def latency(self, labels: FloatArray) -> FloatArray:
        """Return the latencies in ms of labels."""
        return self.low + (labels - LOW) / SPAN * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class SourcePool:
    """The data of a source: m labelled architectures, and the log-latencies of the references (10,)."""

    genes: IntArray
    labels: FloatArray
    scale: Scale
    log_references: FloatArray


def measured_references(space: SearchSpace, genes: IntArray, log_latency: FloatArray) -> FloatArray:
    """Return the log-latencies of HELP's ten references in their order, NaN for those that `genes` do not include."""
    row = {one.tobytes(): i for i, one in enumerate(np.ascontiguousarray(genes))}
    found = [row.get(one.tobytes()) for one in space.genes(space.references())]
    return np.array([np.nan if i is None else log_latency[i] for i in found])


def is_reference(space: SearchSpace, genes: IntArray) -> NDArray[np.bool_]:
    """Return which of `genes` (n, genes) are among HELP's references, shape (n,)."""
    same = (genes[:, None] == space.genes(space.references())).all(axis=2)
    return np.asarray(same.any(axis=1))


def embedding(log_references: FloatArray) -> FloatArray:
    """Return the latencies of the references scaled to 0-1; 0.5 for each where they are all the same."""
    latency = np.exp(log_references - log_references.max())
    spread = float(np.ptp(latency))
    return np.asarray(latency - latency.min()) / spread if spread > 0 else np.full(len(latency), 0.5)


def source_pool(space: SearchSpace, source: SourceDevice, trimmed: float, seed: int) -> SourcePool:
    """Return the pool of a source: its measurements without the references and without the ends of its latencies.

    References that the source has not measured are estimated by `ridge` from (up to 80 of) its measurements.

    Args:
        trimmed: share of the measurements that is dropped at either end.

    Raises:
        ValueError: fewer than four measurements remain, or one is not positive and finite.
    """
    try:
        log_latency, _ = log_labels(source.genes, source.latency_ms)
    except ValueError as error:
        raise ValueError(f"source device {source.name}: {error}") from error
    references = measured_references(space, source.genes, log_latency)
    rows = np.flatnonzero(~is_reference(space, source.genes))
    rows = rows[np.argsort(log_latency[rows], kind="stable")]
    rows = rows[int(trimmed * len(rows)) : int((1 - trimmed) * len(rows))]
    if len(rows) < 4:
        raise ValueError(
            f"source device {source.name} has {len(rows)} measurements once the slowest and fastest {trimmed:.0%} are "
            "dropped; HELP needs four: leave it out"
        )
    if np.isnan(references).any():
        few = np.random.default_rng(seed).permutation(len(source.genes))[:STOOD_IN]
        ridge = Ridge(space)
        ridge.adapt(source.genes[few], np.exp(log_latency[few]))
        estimated = np.log(ridge.predict(space.genes(space.references())).mean_ms)
        references = np.where(np.isnan(references), estimated, references)
    latency = np.exp(log_latency[rows])
    scale = _scale(float(latency.min()), float(latency.max()))
    return SourcePool(source.genes[rows], scale.labels(latency), scale, references)


def impute(log_references: FloatArray, sources: FloatArray) -> FloatArray:
    """Estimate the references of a target that are not measured (NaN) from those of the sources (devices, 10).

    In the model, a device's log-latencies are the sources' mean, plus a level of its own, plus a normal deviation whose
    covariance is that of the sources, shrunk towards independent deviations of 20 %. Missing references are the mean
    given the measured ones; if none is measured, all are those of the mean source.
    """
    centre = np.asarray(sources.mean(axis=0), dtype=np.float64)
    mean = np.asarray(centre - centre.mean(), dtype=np.float64)
    known = ~np.isnan(log_references)
    if not known.any():
        return mean
    deviations = sources - sources.mean(axis=1, keepdims=True) - mean
    covariance = deviations.T @ deviations + PRIOR_DEVICES * PRIOR_DEVIATION**2 * np.eye(len(mean))
    covariance = covariance / (len(sources) + PRIOR_DEVICES) + LEVEL_VARIANCE
    gain = covariance[:, known] @ np.linalg.inv(covariance[np.ix_(known, known)])
    return np.asarray(np.where(known, log_references, mean + gain @ (log_references[known] - mean[known])))


def label_scale(latency: FloatArray, guess: FloatArray, sources: Sequence[Scale]) -> Scale:
    """Estimate the scale of a target, whose smallest and largest latency are not known.

    On this scale n measurements (n >= 1) agree with the labels that the network gives them before it adapts. From three
    measurements on, mean and spread agree. With fewer, or where the two do not rise together, only the means agree, and
    the ratio of the ends is the sources' typical one.

    Args:
        latency: measurements in ms, shape (n,).
        guess: labels by the network, shape (n,).
        sources: scales of the sources.
    """
    share = (guess - LOW) / SPAN
    rise = float((latency - latency.mean()) @ (guess - guess.mean()))
    if len(latency) >= TWO_POINTS and rise > 0:
        span = float(latency.std() / share.std())
        low = float(latency.mean() - span * share.mean())
        return Scale(low, low + span)
    ratio = float(np.exp(np.mean([np.log(scale.high / scale.low) for scale in sources])))
    low = float(latency.mean() / max(1 + (ratio - 1) * share.mean(), 0.1))
    return _scale(low, ratio * low)


def _scale(low: float, high: float) -> Scale:
    """Return a scale whose ends differ, even if a source has the same latency everywhere."""
    return Scale(low, max(high, low * (1 + 1e-6)))
