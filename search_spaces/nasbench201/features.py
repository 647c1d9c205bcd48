"""What the cells of NAS-Bench-201 execute, counted in the several ways that runtimes read their graph."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.nasbench201.cell import EDGES, PATHS

__all__ = ["all_features"]

PATH_COSTS = ((0, 0, 1, 1, 0), (0, 0, 1, 1, 1), (0, 0, 1, 1, 2), (0, 0, 1, 2, 1), (0, 0, 1, 2, 3), (0, 0, 1, 3, 0.5))
"""Relative costs of the five operations by which critical paths are measured: which path is critical depends on what a
device finds slow, and the length is linear in the costs only as long as the path stays the same."""


@cache
def all_features() -> NDArray[np.float64]:
    """Features of all cells, in the order of their genes as a number in base 5: shape (15625, features).

    Columns: 1; of the edges as written, the number of each operation but skips; of edges that reach the output,
    of those that receive something, and of those that do both, the number of each operation; of these the additions,
    the distinct inputs of pools and of ReLUs (equal operations merged); distinct inputs of pools and ReLUs as written;
    for cells without a path, whose output is constant, what they would execute as written (a runtime may fold
    the whole network); and critical paths.
    """
    genes = np.arange(5**6)[:, None] // 5 ** np.arange(6) % 5
    target, source = np.array(EDGES).T
    executed = genes > 0
    receives, reaches = np.zeros((2, len(genes), 4), bool)
    receives[:, 0], reaches[:, 3] = True, True
    for edge in range(6):
        receives[:, target[edge]] |= executed[:, edge] & receives[:, source[edge]]
    for edge in reversed(range(6)):
        reaches[:, source[edge]] |= executed[:, edge] & reaches[:, target[edge]]
    every = np.ones_like(executed)
    reaching, receiving = reaches[:, target], receives[:, source]
    live = executed & reaching & receiving
    is_constant = ~live.any(axis=1)

    def count(keep: NDArray[np.bool_], *ops: int) -> list[NDArray[np.int64]]:
        return [((genes == op) & keep).sum(axis=1) for op in ops]

    def inputs(keep: NDArray[np.bool_], *ops: int) -> NDArray[np.int64]:
        """From how many nodes an edge with one of the operations starts."""
        wanted = np.isin(genes, ops) & keep
        starts = np.stack([wanted[:, source == node].any(axis=1) for node in range(3)])
        return np.asarray(starts.sum(axis=0))

    def longest(keep: NDArray[np.bool_], costs: tuple[float, ...]) -> NDArray[np.float64]:
        """Of the paths along edges to keep, the length of the longest; 0 where there is none."""
        lengths = np.array(costs)[genes]
        paths = [np.where(keep[:, path].all(axis=1), lengths[:, path].sum(axis=1), 0) for path in map(list, PATHS)]
        return np.asarray(np.max(paths, axis=0))

    additions = sum(np.maximum(live[:, target == node].sum(axis=1) - 1, 0) for node in (1, 2, 3))
    columns = [
        np.ones(len(genes)),
        *count(every, 0, 2, 3, 4),
        *count(reaching, 0, 2, 3, 4),
        *count(receiving, 2, 3, 4),
        *count(live, 1, 2, 3, 4),
        additions,
        *(inputs(keep, *ops) for keep in (live, every) for ops in ((4,), (2, 3))),
        is_constant,
        *(column * is_constant for column in count(every, 0, 2, 3, 4)),
        *(longest(live, costs) for costs in PATH_COSTS),
        *(longest(every, costs) for costs in PATH_COSTS[3:]),
    ]
    return np.stack(columns, axis=1).astype(np.float64)
