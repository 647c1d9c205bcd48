"""What a sample of architectures executes, as arrays: distinct layers, and how often each network runs each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from latlab.predictors.base import FloatArray, IntArray
from latlab.search_spaces import Architecture, Layer, SearchSpace

__all__ = ["Workload", "workload_of"]

FACTS = ("kernel", "stride", "groups", "in_channels", "out_channels", "in_size", "out_size", "macs", "params")


@dataclass(frozen=True, slots=True)
class Workload:
    """m architectures in terms of L distinct layers (same kind and shape, wherever they stand)."""

    kinds: tuple[str, ...]
    """Kinds of layers, e.g. `conv`."""
    kind: IntArray
    """Kind of each layer, an index into `kinds`: shape (L,)."""
    facts: dict[str, FloatArray]
    """Numbers of each layer by name (see `search_spaces.cost.Layer`): shape (L,)."""
    readings: dict[str, tuple[sparse.csr_array, IntArray]]
    """Reading -> (runs, owner): `runs` of shape (branches, L) counts executions of each layer in each branch, `owner`
    of shape (branches,) is the architecture of each branch, in rising order and none missing."""


def workload_of(space: SearchSpace, archs: Sequence[Architecture]) -> Workload:
    """The workload of `archs` in every reading of the space."""
    index: dict[tuple[str, ...] | tuple[object, ...], int] = {}
    layers: list[Layer] = []
    known: dict[int, tuple[Layer, int]] = {}

    def position(layer: Layer) -> int:
        # Spaces reuse their layer objects, so identity finds most; the reference keeps it from being given to another.
        hit = known.get(id(layer))
        if hit is None:
            signature = (layer.kind, *(getattr(layer, fact) for fact in FACTS))
            hit = layer, index.setdefault(signature, len(index))
            if hit[1] == len(layers):
                layers.append(layer)
            known[id(layer)] = hit
        return hit[1]

    found: dict[str, tuple[list[int], list[int], list[int]]] = {}
    for number, arch in enumerate(archs):
        for name, branches in space.readings(arch).items():
            columns, ends, owner = found.setdefault(name, ([], [0], []))
            for branch in branches:
                columns.extend(map(position, branch))
                ends.append(len(columns))
                owner.append(number)
    kinds = tuple(sorted({layer.kind for layer in layers}))
    facts = {
        fact: np.array([getattr(layer, fact) for layer in layers], np.float64)
        for fact in (*FACTS, "in_elements", "activations")
    }
    readings = {}
    for name, (columns, ends, owner) in found.items():
        runs = sparse.csr_array((np.ones(len(columns)), columns, ends), shape=(len(owner), len(layers)))
        runs.sum_duplicates()
        readings[name] = runs, np.array(owner)
    kind = np.array([kinds.index(layer.kind) for layer in layers], np.int64)
    return Workload(kinds, kind, facts, readings)
