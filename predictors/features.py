"""Analytic cost features: a network as the totals of what its layers cost, read in two ways.

Nothing is measured or run: `SearchSpace.layers` gives every operator's cost, as written and with dead edges removed,
and this module adds them up per class of operator. A class is a kind and kernel size (`depthwise 5`), and, in the
local block, also the side of its output, because the same multiply-accumulate costs more at some resolutions than
at others.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray
from latlab.search_spaces import Architecture, Layer, SearchSpace

__all__ = ["CostFeatures", "cost_features"]

SAMPLE = 1000
"""Architectures that fix which features vary and their scale: a property of the space, not of what is measured."""


class CostFeatures:
    """Standardised cost features of one space, in named groups.

    `totals`: logarithms of MACs, bytes and operators. `global`: work and number per class of operator. `local`: the
    same per class and resolution. Each column has mean 0 and standard deviation 1 over a fixed sample of the space,
    then is divided by the root of its group's width, so that every group brings variance about 1.
    """

    GROUPS = ("totals", "global", "local")

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._rows: dict[str, NDArray[np.float32]] = {}
        sample = space.sample(min(SAMPLE, space.size), random.Random(0))
        costs = [self._cost(arch) for arch in sample]
        self._columns: dict[str, list[str]] = {}
        self._scale: dict[str, tuple[FloatArray, FloatArray]] = {}
        for group in self.GROUPS:
            names = sorted({name for cost in costs for name in cost[group]})
            values = np.array([[cost[group].get(name, 0.0) for name in names] for cost in costs])
            # Identical columns (a stride that never varies, live equal to written) would count their cost twice.
            _, first = np.unique(values.round(9), axis=1, return_index=True)
            keep = [i for i in sorted(first) if values[:, i].std() > 1e-9 * (1 + abs(values[:, i].mean()))]
            self._columns[group] = [names[i] for i in keep]
            mean, std = values[:, keep].mean(axis=0), values[:, keep].std(axis=0)
            self._scale[group] = mean, std * np.sqrt(max(len(keep), 1))

    def __call__(self, archs: Sequence[Architecture]) -> dict[str, FloatArray]:
        """Group name -> array of shape (len(archs), columns of the group)."""
        width = sum(map(len, self._columns.values()))
        table = np.array([self._row(arch) for arch in archs], dtype=np.float64).reshape(len(archs), width)
        ends = np.cumsum([len(self._columns[group]) for group in self.GROUPS])
        return dict(zip(self.GROUPS, np.split(table, ends[:-1], axis=1), strict=True))

    def columns(self, group: str) -> list[str]:
        """What each column of a group counts."""
        return list(self._columns[group])

    def _row(self, arch: Architecture) -> NDArray[np.float32]:
        row = self._rows.get(arch.text)
        if row is None:
            cost = self._cost(arch)
            parts = []
            for group in self.GROUPS:
                mean, std = self._scale[group]
                parts.append((np.array([cost[group].get(name, 0.0) for name in self._columns[group]]) - mean) / std)
            row = self._rows[arch.text] = np.concatenate(parts).astype(np.float32)
        return row

    def _cost(self, arch: Architecture) -> dict[str, dict[str, float]]:
        cost: dict[str, dict[str, float]] = {group: defaultdict(float) for group in self.GROUPS}
        for reading in ("written", "live"):
            _add(cost, reading, self.space.layers(arch, live=reading == "live"))
        return cost


def _add(cost: dict[str, dict[str, float]], reading: str, layers: Sequence[Layer]) -> None:
    total_macs = total_bytes = 0
    global_, local = cost["global"], cost["local"]
    for layer in layers:
        kind = f"{reading} {layer.kind} {layer.kernel}"
        work = layer.macs or layer.activations
        global_[kind + " work"] += work
        global_[kind + " count"] += 1
        local[f"{kind} @{layer.out_size} work"] += work
        local[f"{kind} @{layer.out_size} count"] += 1
        total_macs += layer.macs
        total_bytes += layer.bytes
    cost["totals"][f"{reading} log macs"] = np.log1p(total_macs)
    cost["totals"][f"{reading} log bytes"] = np.log1p(total_bytes)
    cost["totals"][f"{reading} log operators"] = np.log1p(len(layers))


@cache
def cost_features(space: SearchSpace) -> CostFeatures:
    """The features of a space, made once per process."""
    return CostFeatures(space)
