"""What networks cost in all, as written: one gather for a whole array of genes where the space is made of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from latlab.predictors.base import FloatArray, IntArray
from latlab.search_spaces import BlockSpace, Layer, SearchSpace, blocks_of

__all__ = ["COSTS", "Totals", "block_costs", "totals"]

COSTS = ("macs", "params", "bytes", "operators")
CHUNK = 20_000
"""Architectures at a time: what is gathered for them stays in the processor's cache."""


def _costs(layers: Sequence[Layer]) -> list[int]:
    return [*(sum(getattr(layer, cost) for layer in layers) for cost in COSTS[:-1]), len(layers)]


@cache
def block_costs(blocks: BlockSpace) -> FloatArray:
    """Costs of each block, in the order of `COSTS`: shape (blocks + 1, 4), zeros in the last row (block -1)."""
    table = [_costs(blocks.layers(block)) for block in blocks.enumerate()]
    return np.array([*table, [0] * len(COSTS)], dtype=np.float64)


class Totals:
    """Costs of architectures of one space: multiply-accumulates, parameters, bytes moved, operators executed."""

    def __init__(self, space: SearchSpace) -> None:
        self.space, self._blocks = space, blocks_of(space)
        self._known: dict[bytes, list[int]] = {}

    def __call__(self, genes: IntArray, *costs: str) -> FloatArray:
        """Shape (n, costs), for names of `COSTS`; all of them where none is named."""
        columns = [COSTS.index(cost) for cost in costs or COSTS]
        if self._blocks is None:
            return self._one_by_one(genes)[:, columns]
        table = block_costs(self._blocks)
        found = np.empty((len(genes), len(columns)))
        for start in range(0, len(genes), CHUNK):
            ids = self._blocks.ids(genes[start : start + CHUNK])
            for i, column in enumerate(columns):
                found[start : start + CHUNK, i] = table[:, column][ids] @ self._blocks.repeats
        return found

    def _one_by_one(self, genes: IntArray) -> FloatArray:
        keys = [row.tobytes() for row in np.ascontiguousarray(genes)]
        for key, row in zip(keys, genes, strict=True):
            if key not in self._known:
                self._known[key] = _costs(self.space.layers(self.space.from_genes(row)))
        return np.array([self._known[key] for key in keys], dtype=np.float64).reshape(len(genes), len(COSTS))


@cache
def totals(space: SearchSpace) -> Totals:
    """Of a space, made once per process."""
    return Totals(space)
