"""Numbers in which latency is close to linear: what a network executes, counted per kind of thing that has a price."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture
from latlab.search_spaces.layers import Layer

__all__ = ["HasLayers", "layer_features"]

SAMPLE = 300
"""Architectures that fix which classes of layers a space has."""
QUANTITIES = 3


class HasLayers(Hashable, Protocol):
    """What `layer_features` calls of a search space. `SearchSpace`, which imports this module, fulfils it."""

    @property
    def size(self) -> int: ...

    def sample(self, n: int, seed: int = 0) -> list[Architecture]: ...

    def from_genes(self, genes: Sequence[int]) -> Architecture: ...

    def readings(self, arch: Architecture) -> dict[str, tuple[tuple[Layer, ...], ...]]: ...


def layer_features(space: HasLayers, genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Features of any space, from its layers: 1, then number, multiply-accumulates and bytes per class of layer.

    A class is a kind, a kernel size and a reading of the graph (`SearchSpace.readings`; of parallel branches, the one
    with the most layers). Slow, because layers are listed architecture by architecture: a space can do better.

    Returns:
        Shape (n, features), float64, the first column 1.
    """
    index = _classes(space)
    found = np.zeros((len(genes), 1 + QUANTITIES * len(index)))
    found[:, 0] = 1
    for row, values in zip(found, genes, strict=True):
        for reading, branches in space.readings(space.from_genes(values)).items():
            for layer in max(branches, key=len):
                at = index.get(_class(reading, layer))
                if at is not None:
                    row[1 + QUANTITIES * at : 1 + QUANTITIES * (at + 1)] += (1, layer.macs / 1e6, layer.bytes / 1e6)
    return found


@cache
def _classes(space: HasLayers) -> dict[tuple[str, str, int], int]:
    """Number of each class that a sample of the space has."""
    found: set[tuple[str, str, int]] = set()
    for arch in space.sample(min(SAMPLE, space.size), 0):
        for reading, branches in space.readings(arch).items():
            found |= {_class(reading, layer) for branch in branches for layer in branch}
    return {name: number for number, name in enumerate(sorted(found))}


def _class(reading: str, layer: Layer) -> tuple[str, str, int]:
    return reading, layer.kind, layer.kernel
