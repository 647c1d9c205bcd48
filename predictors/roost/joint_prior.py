"""The prior over devices in two spaces at once: what labels in one space say of latencies in the other.

A device executes both spaces with the same rates, bandwidth, overheads and reading of graphs. So synthetic devices
that measure networks of both (`synthetic/devices.py`) have two cost tables each, side by side in one vector, and these
form a mixture of Gaussians as in `prior.py`. Labels in one space condition the whole vector, its part in the other
space included.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.linalg import block_diag

from latlab.predictors.roost.prior import (
    DEVICES,
    LEAST,
    SAMPLE,
    WORST_FIT,
    SyntheticPrior,
    components_of,
    kept_prior,
    synthetic_prior,
    tables_of,
)
from latlab.predictors.synthetic.devices import synthesise_jointly
from latlab.predictors.synthetic.workload import workloads_of
from latlab.search_spaces import SearchSpace

__all__ = ["are_related", "joint_prior"]

COMMON = 0.5
"""Least share of the multiply-accumulates of each space that is in kinds of layers which the other has, too."""
LOOKED_AT = 20
"""Number of networks of each space that are looked at for that."""
SEED = 0
"""Seed of the devices and of their clustering."""


@lru_cache(maxsize=64)
def are_related(a: SearchSpace, b: SearchSpace) -> bool:
    """Return whether both spaces do most of their work in kinds of layers that the other has, too."""
    work: list[dict[str, float]] = [{}, {}]
    for space, found in zip((a, b), work, strict=True):
        for arch in space.sample(min(LOOKED_AT, space.size), 0):
            for layer in space.layers(arch):
                found[layer.kind] = found.get(layer.kind, 0.0) + layer.macs
    both = work[0].keys() & work[1].keys()
    return all(sum(one[kind] for kind in both) >= COMMON * sum(one.values()) for one in work)


@lru_cache(maxsize=8)
def joint_prior(other: SearchSpace, space: SearchSpace) -> SyntheticPrior:
    """Return the prior over the tables of a device in two spaces, those of `other` first: d_other + d numbers.

    The table of `other` is scaled to mean latency 1 over its sample, and that of `space` relative to it. The prior
    takes seconds to make, and is kept for the next process.
    """
    own = [synthetic_prior(one) for one in (other, space)]
    features = np.concatenate([(one.sample * one.scale).ravel() for one in own])
    return kept_prior("joint prior", (other, space), features, SEED, lambda: _joint_prior(other, space, own))


def _joint_prior(other: SearchSpace, space: SearchSpace, own: Sequence[SyntheticPrior]) -> SyntheticPrior:
    spaces = (other, space)
    # The same samples as those of the spaces by themselves, whose features are known.
    workloads = workloads_of([(one, one.sample(min(SAMPLE, one.size), 0)) for one in spaces])
    devices = synthesise_jointly(workloads, DEVICES, SEED)
    tables, logs = [], []
    usable = np.ones(DEVICES, dtype=bool)
    for prior, found in zip(own, devices, strict=True):
        relative, error = tables_of(prior.sample, found.latency)
        fitted = relative @ prior.sample.T
        usable &= (fitted.min(axis=1) > LEAST) & (error < WORST_FIT)
        level = (found.level / devices[0].level)[:, None]
        tables.append(relative * level)
        logs.append(np.log(np.maximum(fitted, LEAST) * level))
    reading = max(zip(workloads, devices, strict=True), key=lambda one: len(one[0].readings))[1].reading
    side_by_side = np.concatenate(tables, axis=1)[usable]
    clusters, broad, pooled = components_of(side_by_side, np.concatenate(logs, axis=1)[usable], reading[usable], SEED)
    return SyntheticPrior(
        scale=np.concatenate([one.scale for one in own]),
        sample=block_diag(*(one.sample for one in own)),
        clusters=clusters,
        broad=broad,
        pooled=pooled,
        of_constant=np.concatenate([one.of_constant for one in own]),
    )
