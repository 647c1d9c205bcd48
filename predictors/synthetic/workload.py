"""The workload of a sample of architectures as arrays: the distinct layers, and how often each network runs each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from latlab.predictors.base import FloatArray, IntArray
from latlab.search_spaces import Architecture, Layer, SearchSpace

__all__ = ["Workload", "workload_of", "workloads_of"]

FACTS = ("kernel", "stride", "groups", "in_channels", "out_channels", "in_size", "out_size", "macs", "params")


@dataclass(frozen=True, slots=True)
class Workload:
    """m architectures as counts of L distinct layers; layers of the same kind and shape are the same, wherever they
    are."""

    kinds: tuple[str, ...]
    """Kinds of layers, such as `conv`."""
    kind: IntArray
    """Kind of each layer as an index into `kinds`, shape (L,)."""
    facts: dict[str, FloatArray]
    """Attributes of the layers by name (see `search_spaces.layers.Layer`), each of shape (L,)."""
    readings: dict[str, tuple[sparse.csr_array, IntArray]]
    """(runs, owner) of each reading: `runs` of shape (branches, L) counts executions of each layer in each branch,
    `owner` of shape (branches,) is the architecture of each branch, in rising order and with none missing."""


def workload_of(space: SearchSpace, archs: Sequence[Architecture]) -> Workload:
    """Return the workload of `archs` in every reading of the space."""
    return workloads_of([(space, archs)])[0]


def workloads_of(parts: Sequence[tuple[SearchSpace, Sequence[Architecture]]]) -> tuple[Workload, ...]:
    """Return a workload for each space and its architectures. All have the same layers, those of all spaces."""
    index: dict[tuple[str, ...] | tuple[object, ...], int] = {}
    layers: list[Layer] = []
    known: dict[int, tuple[Layer, int]] = {}

    def position(layer: Layer) -> int:
        # Looking up by identity is quick, and finds most because spaces reuse their layer objects. While `known`
        # references a layer, no other object gets its id.
        hit = known.get(id(layer))
        if hit is None:
            signature = (layer.kind, *(getattr(layer, fact) for fact in FACTS))
            hit = layer, index.setdefault(signature, len(index))
            if hit[1] == len(layers):
                layers.append(layer)
            known[id(layer)] = hit
        return hit[1]

    found: list[dict[str, tuple[list[int], list[int], list[int]]]] = []
    for space, archs in parts:
        found.append({})
        for number, arch in enumerate(archs):
            for name, branches in space.readings(arch).items():
                columns, ends, owner = found[-1].setdefault(name, ([], [0], []))
                for branch in branches:
                    columns.extend(map(position, branch))
                    ends.append(len(columns))
                    owner.append(number)
    kinds = tuple(sorted({layer.kind for layer in layers}))
    facts = {
        fact: np.array([getattr(layer, fact) for layer in layers], np.float64)
        for fact in (*FACTS, "in_elements", "activations")
    }
    kind = np.array([kinds.index(layer.kind) for layer in layers], np.int64)
    workloads = []
    for of_space in found:
        readings = {}
        for name, (columns, ends, owner) in of_space.items():
            runs = sparse.csr_array((np.ones(len(columns)), columns, ends), shape=(len(owner), len(layers)))
            runs.sum_duplicates()
            readings[name] = runs, np.array(owner)
        workloads.append(Workload(kinds, kind, facts, readings))
    return tuple(workloads)
