"""Features of any search space, counted from its layers: numbers in which latency is close to linear."""

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
"""Number of architectures that are searched for classes of layers; a class that none of them has gets no columns."""
QUANTITIES = 3
"""Columns per class: number of layers, multiply-accumulates, bytes."""


class HasLayers(Hashable, Protocol):
    """The members of a search space that `layer_features` uses; `SearchSpace`, which imports this module, has them."""

    @property
    def size(self) -> int: ...

    def sample(self, n: int, seed: int = 0) -> list[Architecture]: ...

    def from_genes(self, genes: Sequence[int]) -> Architecture: ...

    def readings(self, arch: Architecture) -> dict[str, tuple[tuple[Layer, ...], ...]]: ...


def layer_features(space: HasLayers, genes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1, then the number, 10^6 multiply-accumulates and 10^6 bytes of each class of layer, per architecture.

    A class is a reading of the graph (`SearchSpace.readings`), a kind and a kernel size. Of parallel branches the one
    with the most layers counts. The function is slow, because it lists the layers of one architecture after another;
    a space can count faster.

    Args:
        genes: shape (n, genes).

    Returns:
        float64 of shape (n, features), the first column 1.
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
    """Return the classes of layers that a sample of the space has, each with its position among the features."""
    found: set[tuple[str, str, int]] = set()
    for arch in space.sample(min(SAMPLE, space.size), 0):
        for reading, branches in space.readings(arch).items():
            found |= {_class(reading, layer) for branch in branches for layer in branch}
    return {name: number for number, name in enumerate(sorted(found))}


def _class(reading: str, layer: Layer) -> tuple[str, str, int]:
    return reading, layer.kind, layer.kernel
