"""Analytic cost features of a network: sums of the costs of its layers, as written and with dead edges removed.

Nothing is measured or run: `SearchSpace.layers` gives every operator's cost in both readings, and this module adds the
costs up per class of operator. A class is a kind and a kernel size (`depthwise 5`); in the local group it is also the
height of the output, because a multiply-accumulate costs more at some resolutions than at others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import Archs, FloatArray
from latlab.search_spaces import Architecture, Layer, SearchSpace

__all__ = ["CostFeatures", "cost_features"]

SAMPLE = 1000
"""Number of architectures that determine which features vary and by how much. So the features are a property of the
space and not of the measured architectures."""
TOTALS = ("macs", "bytes", "operators")
READINGS = ("written", "live")
MAX_LAYERS = 200_000
"""Number of layers that are remembered: a space that makes new ones per architecture must not fill the memory."""


class CostFeatures:
    """Standardised cost features of one space, in named groups.

    `totals`: logarithms of MACs, bytes and operators. `global`: work and number per class of operator. `local`: the
    same per class and resolution. Each column has mean 0 and standard deviation 1 over a fixed sample of the space,
    then is divided by the root of its group's width, so that every group brings variance about 1.
    """

    GROUPS = ("totals", "global", "local")

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._cache: dict[str, NDArray[np.float32]] = {}
        sample = space.sample(min(SAMPLE, space.size), random.Random(0))
        both = [self._layers(arch) for arch in sample]
        layers = {id(layer): layer for pair in both for reading in pair for layer in reading}
        classes = {name for layer in layers.values() for name, _ in _costs(layer)} - set(TOTALS)
        self._classes = {name: i for i, name in enumerate((*TOTALS, *sorted(classes)))}
        self._index: dict[int, tuple[Layer, int]] = {}
        self._table = np.zeros((1024, len(self._classes)))
        raw = np.array([self._raw(arch) for arch in sample])

        self._columns: dict[str, NDArray[np.intp]] = {}
        names = [f"{reading} {name}" for reading in READINGS for name in self._classes]
        self._names = np.array(names)
        for group in self.GROUPS:
            columns = np.array([i for i, name in enumerate(names) if _group(name) == group])
            values = raw[:, columns]
            # Identical columns (live equal to written, say) would count their cost twice; constant ones are useless.
            first = np.unique(values.round(9), axis=1, return_index=True)[1]
            varies = values.std(axis=0) > 1e-9 * (1 + np.abs(values.mean(axis=0)))
            self._columns[group] = columns[[i for i in sorted(first) if varies[i]]]
        self._order = np.concatenate(list(self._columns.values()))
        widths = np.concatenate([np.full(len(c), max(len(c), 1)) for c in self._columns.values()])
        self._mean = raw[:, self._order].mean(axis=0)
        self._scale = raw[:, self._order].std(axis=0) * np.sqrt(widths)

    def __call__(self, archs: Archs) -> dict[str, FloatArray]:
        """Return the features of each group by its name, of shape (len(archs), columns of the group)."""
        table = np.array([self._row(arch) for arch in self.space.architectures(archs)], dtype=np.float64).reshape(
            len(archs), len(self._order)
        )
        ends = np.cumsum([len(self._columns[group]) for group in self.GROUPS])
        return dict(zip(self.GROUPS, np.split(table, ends[:-1], axis=1), strict=True))

    def columns(self, group: str) -> list[str]:
        """Return the names of a group's columns, such as `live depthwise 5 work`."""
        return [str(name) for name in self._names[self._columns[group]]]

    def _row(self, arch: Architecture) -> NDArray[np.float32]:
        row = self._cache.get(arch.text)
        if row is None:
            row = ((self._raw(arch)[self._order] - self._mean) / self._scale).astype(np.float32)
            self._cache[arch.text] = row
        return row

    def _layers(self, arch: Architecture) -> tuple[Sequence[Layer], Sequence[Layer]]:
        if self.space.autoregressive:  # a runtime starts a layer in each step, and `layers` has it once for all steps
            (step,) = self.space.readings(arch)["written"]
            return step, step
        return self.space.layers(arch, live=False), self.space.layers(arch, live=True)

    def _raw(self, arch: Architecture) -> FloatArray:
        """Return the sums per class, as written and then live; the totals over all classes as logarithms."""
        if len(self._index) >= MAX_LAYERS:  # here and not while rows of this architecture are being collected
            self._index.clear()
        written, live = ([self._position(layer) for layer in layers] for layers in self._layers(arch))
        sums = np.stack([self._table[rows].sum(axis=0) for rows in (written, live)])
        sums[:, : len(TOTALS)] = np.log1p(sums[:, : len(TOTALS)])
        return sums.ravel()

    def _position(self, layer: Layer) -> int:
        """Return the row of `_table` that holds a layer's costs.

        Layers are looked up by identity, which is quick, and finds most of them because spaces reuse their objects.
        """
        known = self._index.get(id(layer))
        if known is not None:
            return known[1]
        row = len(self._index)
        if row == len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        self._table[row] = 0
        for name, cost in _costs(layer):
            if name in self._classes:  # a class that the sample does not have cannot be scaled
                self._table[row, self._classes[name]] = cost
        self._index[id(layer)] = layer, row  # while the layer is referenced, no other object gets its id
        return row


def _costs(layer: Layer) -> list[tuple[str, float]]:
    work = layer.macs or layer.activations
    kind = f"{layer.kind} {layer.kernel}"
    local = f"{kind} @{layer.out_size}"
    per_class = [(f"{name} {what}", cost) for name in (kind, local) for what, cost in (("work", work), ("count", 1))]
    return [("macs", layer.macs), ("bytes", layer.bytes), ("operators", 1), *per_class]


def _group(name: str) -> str:
    if name.split(" ", 1)[1] in TOTALS:
        return "totals"
    return "local" if "@" in name else "global"


@cache
def cost_features(space: SearchSpace) -> CostFeatures:
    """Return the features of a space, the same object each time, because making them takes a while."""
    return CostFeatures(space)
