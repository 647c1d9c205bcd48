"""The prior over devices: a mixture of Gaussians in the space of cost tables.

A device is a cost table w: the latency of an architecture with features phi (`SearchSpace.features`, scaled) is phi . w
plus noise. Tables are scaled so that the mean latency over a sample of the space is 1; the labels determine the level
of a device, in milliseconds (`posterior.py`).

Synthetic devices (`synthetic/devices.py`) become tables by regression of their latencies on the features. Clusters of
these tables, within each reading of the graph, are the first components. Source devices become tables by robust
Bayesian regression under the synthetic prior. Each is the centre of components as wide as a cluster, and together they
span further components around their mean with their covariance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.common.blas_threads import one_thread
from latlab.predictors.common.kept import kept
from latlab.predictors.synthetic.devices import synthesise
from latlab.predictors.synthetic.workload import workload_of
from latlab.search_spaces import Architecture, SearchSpace

__all__ = [
    "Component",
    "SourceTable",
    "SyntheticPrior",
    "components_of",
    "fit_source",
    "kept_prior",
    "mixture",
    "synthetic_prior",
    "tables_of",
]

SAMPLE = 600
"""Number of architectures that synthetic devices measure."""
DEVICES = 3000
"""Number of synthetic devices."""
CLUSTERS = 24
"""Approximate number of clusters of synthetic devices."""
ASPECTS = 12
"""Number of principal components of log-latency by which devices are clustered."""
RIDGE = 1e-4
"""Penalty that keeps a table small where the features are collinear, against squared relative errors."""
LEAST = 0.02
"""Smallest latency of a network, as a share of the mean, where only tables determine it; its logarithm must exist."""
WORST_FIT = 0.5
"""Relative root mean square error of the regression from which a synthetic device is left out; few or none are."""
BATCH = 250
"""Number of devices whose regressions are solved together."""
SHARED = 0.15
"""Share of the pooled covariance in that of each cluster, because a cluster of few devices determines its own badly."""
ABSOLUTE = 0.02
"""Error of a linear model in units of the typical latency, in addition to its relative error: a network that takes a
hundredth of the typical latency (a runtime folds it, say) must not be fitted to some percent of its own latency."""
FREEDOM = 4.0
"""Degrees of freedom of the Student-t by which outliers of a source device are discounted."""
FIT_ROUNDS = 4
"""Number of reweightings for a source. With many, a source that treats few networks differently (folds them, say) would
have these discounted as outliers."""

SOURCE_SCALES = (0.15, 0.5, 1.5)
"""Distances of a target from a source device, in units of the spread within a cluster of synthetic devices."""
SYNTHETIC_SCALES = (0.5, 1.0, 2.0)
ROUGH = 0.5
"""Relative standard deviation of each cost by itself, for devices unlike all synthetic ones."""
SPAN_SCALES = (0.7, 1.5)
SPAN_WIDTHS = (0.05, 0.3)
"""Covariances of a target outside of the span of the sources, as shares of a cluster's covariance."""
WEIGHTS = {"synthetic": 2.0, "broad": 1.0, "source": 0.3, "span": 0.3, "other space": 8.0}
"""Prior weights of each kind of component, all components of the kind together; `broad` is that of each of two."""


@dataclass(frozen=True)
class Component:
    """A component of the prior: w ~ N(mean, s^2 covariance), with s one of `scales`."""

    kind: str
    """A key of `WEIGHTS`."""
    mean: FloatArray
    covariance: FloatArray
    weight: float
    scales: tuple[float, ...]
    level: float | None = None
    """Mean latency of the device over the space in ms, as far as it is known: `covariance` then includes how well.
    None if only labels tell it."""

    @cached_property
    def root(self) -> FloatArray:
        """A square root of the covariance, shape (d, rank), kept because it is the expensive part of conditioning."""
        values, vectors = np.linalg.eigh(self.covariance)
        large = values > 1e-10 * values[-1]
        return np.asarray(vectors[:, large] * np.sqrt(values[large]))


@dataclass(frozen=True, slots=True)
class SourceTable:
    """The cost table of a source device: posterior mean and covariance, scaled to mean latency 1 over the space."""

    name: str
    mean: FloatArray
    covariance: FloatArray
    mean_ms: float
    """Mean latency over the space in ms."""


@dataclass(frozen=True, slots=True)
class SyntheticPrior:
    """The prior from the synthetic devices of a space."""

    scale: FloatArray
    """Divisors of the raw features, shape (d,): their standard deviations over the sample, 1 where constant."""
    sample: FloatArray
    """Scaled features of the sample, shape (m, d)."""
    clusters: tuple[Component, ...]
    broad: Component
    """One Gaussian for all synthetic devices."""
    pooled: FloatArray
    """Mean covariance within clusters, shape (d, d)."""
    of_constant: NDArray[np.bool_]
    """Features that only networks with a constant output have, shape (d,)."""

    def to_arrays(self) -> dict[str, FloatArray | NDArray[np.bool_]]:
        """Return all of it as arrays."""
        return {
            "scale": self.scale,
            "sample": self.sample,
            "pooled": self.pooled,
            "of_constant": self.of_constant,
            "means": np.array([one.mean for one in (self.broad, *self.clusters)]),
            "covariances": np.array([one.covariance for one in (self.broad, *self.clusters)]),
            "weights": np.array([one.weight for one in (self.broad, *self.clusters)]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the prior that `to_arrays` has written."""
        parts = zip(arrays["means"], arrays["covariances"], arrays["weights"].tolist(), strict=True)
        broad, *clusters = (
            Component("synthetic" if place else "broad", mean, covariance, weight, SYNTHETIC_SCALES)
            for place, (mean, covariance, weight) in enumerate(parts)
        )
        return cls(arrays["scale"], arrays["sample"], tuple(clusters), broad, arrays["pooled"], arrays["of_constant"])


@lru_cache(maxsize=16)
def synthetic_prior(space: SearchSpace, seed: int = 0) -> SyntheticPrior:
    """Return the prior from synthetic devices. It takes seconds to make, and is kept for the next process."""
    archs = space.sample(min(SAMPLE, space.size), 0)
    features = space.features(space.genes(archs))

    return kept_prior("prior", (space,), features, seed, lambda: _synthetic_prior(space, archs, features, seed))


def kept_prior(
    what: str, spaces: Sequence[SearchSpace], features: FloatArray, seed: int, make: Callable[[], SyntheticPrior]
) -> SyntheticPrior:
    """Return a prior that is kept on disk, or else make it and keep it.

    Args:
        what: its kind.
        spaces, features, seed: all that it depends on, but code.
        make: makes it.
    """

    def arrays() -> dict[str, FloatArray | NDArray[np.bool_]]:
        with one_thread():
            return make().to_arrays()

    digest = hashlib.sha256(features.tobytes()).hexdigest()
    name = f"roost, {what}, {', '.join(one.name for one in spaces)}, {seed}, {digest}"
    return SyntheticPrior.from_arrays(kept(name, (kept_prior, synthesise, SearchSpace, *map(type, spaces)), arrays))


def _synthetic_prior(
    space: SearchSpace, archs: Sequence[Architecture], features: FloatArray, seed: int
) -> SyntheticPrior:
    deviation = features.std(axis=0)
    scale = np.where(deviation > 1e-9 * np.abs(features).max(axis=0), deviation, 1.0)
    sample = features / scale
    devices = synthesise(workload_of(space, archs), DEVICES, seed)
    tables, error = tables_of(sample, devices.latency)
    fitted = sample @ tables.T
    usable = (fitted.min(axis=0) > LEAST) & (error < WORST_FIT)
    clusters, broad, pooled = components_of(tables[usable], np.log(fitted[:, usable].T), devices.reading[usable], seed)
    constant = space.constant(space.genes(archs))
    return SyntheticPrior(scale, sample, clusters, broad, pooled, _of_constant(features, constant))


def components_of(
    tables: FloatArray, log_latency: FloatArray, reading: IntArray, seed: int
) -> tuple[tuple[Component, ...], Component, FloatArray]:
    """Return a Gaussian for each cluster of synthetic devices, one for all of them, and the pooled covariance (d, d).

    Args:
        tables: tables of the devices, shape (S, d).
        log_latency: logarithms of the latencies by which the devices are clustered, shape (S, m).
        reading: reading of the graph that each executes, shape (S,); a cluster has one only.
        seed: seed of the clustering.
    """
    labels = _clusters(log_latency, reading, seed)
    d = tables.shape[1]
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
    return clusters, Component("broad", mean, covariance, 1.0, SYNTHETIC_SCALES), pooled


def _of_constant(features: FloatArray, constant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the features that only constant networks have, shape (d,); none if these have others, too.

    Args:
        features: features of a sample of the space, shape (m, d).
        constant: which networks of the sample are constant, shape (m,).
    """
    own = ~features[~constant].any(axis=0)
    return np.asarray(own & (features[constant].any() and not features[constant][:, ~own].any()))


def tables_of(features: FloatArray, latency: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit tables by ridge regression of 1 on features / latency, so that errors are relative.

    Args:
        features: shape (m, d).
        latency: shape (S, m).

    Returns:
        The tables (S, d) and their root mean square errors (S,).
    """
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
    """Return the cluster of each device, by k-means of the principal components of its log-latencies (S, m).

    Devices with different readings of the graph are never in one cluster.
    """
    centred = log_latency - log_latency.mean(axis=1, keepdims=True)
    centred = centred - centred.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    aspects = (left * singular)[:, :ASPECTS]
    labels = np.zeros(len(reading), np.int64)
    from scipy.cluster.vq import kmeans2

    for name in np.unique(reading):
        mine = reading == name
        number = max(1, round(CLUSTERS * mine.mean()))
        found = kmeans2(aspects[mine], number, minit="++", rng=np.random.default_rng(seed), iter=20, missing="warn")[1]
        labels[mine] = labels.max() + 1 + found
    return labels


def fit_source(prior: SyntheticPrior, device: SourceDevice, features: FloatArray) -> SourceTable:
    """Fit the table of a source device to its m labels, with outliers discounted (iteratively reweighted, Student-t).

    Args:
        features: scaled features of its architectures, shape (m, d).
    """
    latency = device.latency_ms / device.latency_ms.mean()
    relative = features / latency[:, None]
    variance = np.zeros_like(latency) if device.stderr_ms is None else (device.stderr_ms / device.latency_ms) ** 2
    variance = np.nan_to_num(variance) + (ABSOLUTE * np.median(device.latency_ms) / device.latency_ms) ** 2
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


def mixture(
    prior: SyntheticPrior,
    sources: Sequence[SourceTable],
    *,
    synthetic: bool = True,
    informed: Sequence[Component] = (),
) -> tuple[Component, ...]:
    """Return the components of the prior, whose weights sum to 1.

    Args:
        informed: components that labels in other spaces give (`other_spaces.informed`); their weights sum to 1.
        synthetic: include the synthetic devices; they are always included where there are no sources.
    """
    found: list[Component] = []
    if synthetic or not sources:
        share = WEIGHTS["synthetic"]
        found += [replace(component, weight=share * component.weight) for component in prior.clusters]
        broad = prior.broad
        rough = broad.covariance + np.diag((ROUGH * broad.mean) ** 2)
        found.append(replace(broad, weight=WEIGHTS["broad"]))
        found.append(replace(broad, covariance=rough, weight=WEIGHTS["broad"]))
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
    found += [replace(one, weight=WEIGHTS["other space"] * one.weight) for one in informed]
    total = sum(component.weight for component in found)
    return tuple(replace(component, weight=component.weight / total) for component in found)
