"""Total costs of networks as written, by one array lookup for all of them where the space is made of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from latlab.predictors.base import FloatArray, IntArray
from latlab.search_spaces import BlockSpace, Layer, SearchSpace, blocks_of

__all__ = ["COSTS", "Totals", "block_costs", "totals"]

COSTS = ("macs", "params", "bytes", "operators")
CHUNK = 20_000
"""Number of architectures at a time, such that their block costs stay in the processor's cache."""


def _costs(layers: Sequence[Layer]) -> list[int]:
    return [*(sum(getattr(layer, cost) for layer in layers) for cost in COSTS[:-1]), len(layers)]


@cache
def block_costs(blocks: BlockSpace) -> FloatArray:
    """Return the costs of each block in the order of `COSTS`: shape (blocks + 1, 4), the last row (block -1) zeros."""
    table = [_costs(blocks.layers(block)) for block in blocks.enumerate()]
    return np.array([*table, [0] * len(COSTS)], dtype=np.float64)


class Totals:
    """A function that gives costs of a space's architectures: multiply-accumulates, parameters, bytes, operators."""

    def __init__(self, space: SearchSpace) -> None:
        self.space, self._blocks = space, blocks_of(space)
        self._known: dict[bytes, list[int]] = {}

    def __call__(self, genes: IntArray, *costs: str) -> FloatArray:
        """Return the named costs, all of `COSTS` where none is named, of architectures `genes` (n, genes).

        Returns:
            Shape (n, costs).
        """
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
    """Return the `Totals` of a space, the same object each time, because it remembers costs."""
    return Totals(space)
