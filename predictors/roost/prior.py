"""The prior over devices: a mixture of Gaussians in the space of cost tables.

A device is a cost table w: the latency of an architecture with features phi (`SearchSpace.features`, scaled) is phi . w
plus noise. Tables are scaled so that the mean latency over a sample of the space is 1; how fast a device is in absolute
terms is left to the labels (`posterior.py`).

Synthetic devices (`synthetic.py`) become tables by regression of their latencies on the features; clusters of tables,
within each reading of the graph, are the first components. Source devices become tables by robust Bayesian regression
under the synthetic prior: each is the centre of a component that is as wide as a cluster, and together they span one
more, around their mean with their covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy.cluster.vq import kmeans2

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.common.blas_threads import one_thread
from latlab.predictors.synthetic.devices import synthesise
from latlab.predictors.synthetic.workload import workload_of
from latlab.search_spaces import SearchSpace

__all__ = ["Component", "SourceTable", "SyntheticPrior", "fit_source", "floor_variance", "mixture", "synthetic_prior"]

SAMPLE = 600
"""Architectures that synthetic devices measure."""
DEVICES = 3000
CLUSTERS = 24
ASPECTS = 12
"""Principal components of log-latency by which devices are clustered."""
RIDGE = 1e-4
"""Keeps a table small where the features are collinear: relative to the squared relative errors of the regression."""
LEAST = 0.02
"""No network takes less than this share of the mean, where tables alone speak: there latencies have logarithms."""
WORST_FIT = 0.5
"""Synthetic devices whose latencies are this far (relative, root mean square) from linear in the features are left out;
in practice few or none."""
BATCH = 250
"""Devices whose regressions are solved together."""
SHARED = 0.15
"""Share of the pooled covariance in each cluster's: a cluster of few devices knows little about its own."""
ABSOLUTE = 0.02
"""Error of a linear model in units of the typical latency, beside its relative error: a network that takes a hundredth
of that (a runtime folded it to nothing, say) must not be fitted to some percent of its own latency."""
FREEDOM = 4.0
"""Of the Student-t by which a source device's outliers are discounted."""
FIT_ROUNDS = 4
"""Few: with many, whatever a source does quite differently to few networks (folding them, say) becomes an outlier."""

SOURCE_SCALES = (0.15, 0.5, 1.5)
"""How far a target may be from a source device, in units of the spread within a cluster of synthetic ones."""
SYNTHETIC_SCALES = (0.5, 1.0, 2.0)
SPAN_SCALES = (0.7, 1.5)
SPAN_WIDTHS = (0.05, 0.3)
"""How far a target may leave what the sources span, as a share of a cluster's covariance."""
WEIGHTS = {"synthetic": 2.0, "broad": 1.0, "source": 0.3, "span": 0.3}
"""Prior weights of all components of a kind together."""


@dataclass(frozen=True)
class Component:
    """w ~ N(mean, s^2 covariance), s one of `scales`."""

    kind: str
    mean: FloatArray
    covariance: FloatArray
    weight: float
    scales: tuple[float, ...]

    @cached_property
    def root(self) -> FloatArray:
        """A square root of the covariance, shape (d, rank): found once, for it is the dear part of conditioning."""
        values, vectors = np.linalg.eigh(self.covariance)
        large = values > 1e-10 * values[-1]
        return np.asarray(vectors[:, large] * np.sqrt(values[large]))


@dataclass(frozen=True, slots=True)
class SourceTable:
    """The cost table of a source device: posterior mean and covariance, for mean latency 1; and that mean latency."""

    name: str
    mean: FloatArray
    covariance: FloatArray
    mean_ms: float


@dataclass(frozen=True, slots=True)
class SyntheticPrior:
    """What the synthetic devices of a space have in common."""

    scale: FloatArray
    """By which raw features are divided, shape (d,): their standard deviation over the sample, 1 if constant."""
    sample: FloatArray
    """Scaled features of the sample, shape (m, d)."""
    clusters: tuple[Component, ...]
    broad: Component
    """All synthetic devices as one Gaussian."""
    pooled: FloatArray
    """Mean covariance within clusters, shape (d, d)."""


@lru_cache(maxsize=16)
def synthetic_prior(space: SearchSpace, seed: int = 0) -> SyntheticPrior:
    """The prior from synthetic devices; takes seconds, once per process and space."""
    with one_thread():
        return _synthetic_prior(space, seed)


def _synthetic_prior(space: SearchSpace, seed: int) -> SyntheticPrior:
    archs = space.sample(min(SAMPLE, space.size), 0)
    features = space.features(space.genes(archs))
    deviation = features.std(axis=0)
    scale = np.where(deviation > 1e-9 * np.abs(features).max(axis=0), deviation, 1.0)
    sample = features / scale
    devices = synthesise(workload_of(space, archs), DEVICES, seed)
    tables, error = _tables(sample, devices.latency)
    fitted = sample @ tables.T
    usable = (fitted.min(axis=0) > LEAST) & (error < WORST_FIT)
    tables, reading = tables[usable], devices.reading[usable]
    labels = _clusters(np.log(fitted[:, usable].T), reading, seed)

    d = len(scale)
    groups = [tables[labels == label] for label in np.unique(labels)]
    within = [(group - group.mean(axis=0)).T @ (group - group.mean(axis=0)) for group in groups]
    pooled = np.sum(within, axis=0) / len(tables) + 1e-9 * np.eye(d)
    clusters = tuple(
        Component(
            kind="synthetic",
            mean=group.mean(axis=0),
            covariance=(1 - SHARED) * scatter / len(group) + SHARED * pooled,
            weight=len(group) / len(tables),
            scales=SYNTHETIC_SCALES,
        )
        for group, scatter in zip(groups, within, strict=True)
    )
    mean = tables.mean(axis=0)
    covariance = (tables - mean).T @ (tables - mean) / len(tables) + 1e-9 * np.eye(d)
    return SyntheticPrior(scale, sample, clusters, Component("broad", mean, covariance, 1.0, SYNTHETIC_SCALES), pooled)


def _tables(features: FloatArray, latency: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ridge regression of 1 on features / latency, so that errors are relative: tables (S, d), their errors (S,)."""
    d = features.shape[1]
    above = np.triu_indices(d)
    products = features[:, above[0]] * features[:, above[1]]
    tables, error = np.empty((len(latency), d)), np.empty(len(latency))
    for start in range(0, len(latency), BATCH):
        inverse = 1 / latency[start : start + BATCH]
        gram = np.empty((len(inverse), d, d))
        gram[:, above[0], above[1]] = gram[:, above[1], above[0]] = inverse**2 @ products
        gram[:, np.arange(d), np.arange(d)] += RIDGE * len(features)
        found = np.linalg.solve(gram, (inverse @ features)[..., None])[..., 0]
        tables[start : start + BATCH] = found
        error[start : start + BATCH] = np.sqrt(np.mean(((found @ features.T) * inverse - 1) ** 2, axis=1))
    return tables, error


def _clusters(log_latency: FloatArray, reading: IntArray, seed: int) -> IntArray:
    """Label of each device, from its standardised log-latencies (S, m): k-means of the principal components."""
    centred = log_latency - log_latency.mean(axis=1, keepdims=True)
    centred = centred - centred.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    aspects = (left * singular)[:, :ASPECTS]
    labels = np.zeros(len(reading), np.int64)
    for name in np.unique(reading):
        mine = reading == name
        number = max(1, round(CLUSTERS * mine.mean()))
        found = kmeans2(aspects[mine], number, minit="++", rng=np.random.default_rng(seed), iter=20, missing="warn")[1]
        labels[mine] = labels.max() + 1 + found
    return labels


def floor_variance(latency_ms: FloatArray) -> FloatArray:
    """Variance of log-latencies that comes from absolute errors of the model (`ABSOLUTE`): shape (n,)."""
    return np.asarray((ABSOLUTE * np.median(latency_ms) / latency_ms) ** 2)


def fit_source(prior: SyntheticPrior, device: SourceDevice, features: FloatArray) -> SourceTable:
    """The table of a source device from its m labels, outliers discounted (iteratively reweighted, Student-t).

    Args:
        features: of its architectures, scaled, shape (m, d).
    """
    latency = device.latency_ms / device.latency_ms.mean()
    relative = features / latency[:, None]
    variance = np.zeros_like(latency) if device.stderr_ms is None else (device.stderr_ms / device.latency_ms) ** 2
    variance = np.nan_to_num(variance) + floor_variance(device.latency_ms)
    precision = np.linalg.inv(prior.broad.covariance + 1e-7 * np.eye(features.shape[1]))
    rest = 1 - relative @ prior.broad.mean
    noise, trust = 0.05**2, np.ones_like(latency)
    for _ in range(FIT_ROUNDS):
        weight = trust / (noise + variance)
        covariance = np.linalg.inv(precision + relative.T @ (relative * weight[:, None]))
        mean = prior.broad.mean + covariance @ (relative.T @ (weight * rest))
        error = relative @ mean - 1
        noise = max(float(np.mean(trust * error**2)), 1e-5)
        trust = (FREEDOM + 1) / (FREEDOM + error**2 / (noise + variance))
    level = float((prior.sample @ mean).mean())
    return SourceTable(device.name, mean / level, covariance / level**2, float(device.latency_ms.mean()) * level)


def mixture(prior: SyntheticPrior, sources: Sequence[SourceTable], *, synthetic: bool = True) -> tuple[Component, ...]:
    """All components, weights summing to 1. Without `synthetic`, only sources (if there are any) make the prior."""
    found: list[Component] = []
    if synthetic or not sources:
        share = WEIGHTS["synthetic"]
        found += [replace(component, weight=share * component.weight) for component in prior.clusters]
        found.append(replace(prior.broad, weight=WEIGHTS["broad"]))
    for table in sources:
        weight = WEIGHTS["source"] / len(sources)
        found.append(Component("source", table.mean, prior.pooled + table.covariance, weight, SOURCE_SCALES))
    if len(sources) > 1:
        tables = np.array([table.mean for table in sources])
        mean = tables.mean(axis=0)
        spread = (tables - mean).T @ (tables - mean) / (len(sources) - 1)
        for width in SPAN_WIDTHS:
            weight = WEIGHTS["span"] / len(SPAN_WIDTHS)
            found.append(Component("span", mean, spread + width * prior.pooled, weight, SPAN_SCALES))
    total = sum(component.weight for component in found)
    return tuple(replace(component, weight=component.weight / total) for component in found)
