"""Features of NAS-Bench-201's cells: operations counted in each of the ways in which runtimes read the graph."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.nasbench201.cell import EDGES, PATHS, node_values

__all__ = ["all_features"]

PATH_COSTS = ((0, 0, 1, 1, 0), (0, 0, 1, 1, 1), (0, 0, 1, 1, 2), (0, 0, 1, 2, 1), (0, 0, 1, 2, 3), (0, 0, 1, 3, 0.5))
"""Relative costs of the five operations, several sets of them, by which the lengths of critical paths are computed.
Which path is critical depends on the costs of a device, and the length is linear in these costs only while the critical
path stays the same; so there are several columns."""


@cache
def all_features() -> NDArray[np.float64]:
    """Return the features of all cells, in the order of their genes as a number in base 5: shape (15625, features).

    The columns are, in order:

    - 1;
    - the number of edges of each operation except skips, as written;
    - the same for edges whose result reaches the output, then (without `none`) for edges that a path from the input
      leads to, then (with skips) for live edges, which fulfil both;
    - the number of additions of live edges;
    - the number of distinct inputs of pools, of ReLUs, and of 1x1 and of 3x3 convolutions, for live edges and as
      written: a compiler may merge equal operations on the same input, and fuse convolutions of one size on it;
    - the length of the longest live path at each set of `PATH_COSTS`, and of the longest path as written at the last
      three;
    - for cells without a live edge, whose output is constant: 1, their operations as written, the convolutions whose
      result reaches the output, and the distinct inputs of pools and ReLUs as written.

    All columns but the last group are 0 for those cells: a runtime may fold the whole network to nothing, and what that
    takes then says nothing of the others.
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
        """Return the number of distinct values from which an edge with one of these operations starts."""
        wanted = np.isin(genes, ops) & keep
        starts = np.stack([wanted[:, source == node].any(axis=1) for node in range(3)], axis=1)
        value = node_values(genes, keep & executed)
        return np.asarray(sum((starts & (value == one)).any(axis=1) for one in range(3)))

    def longest(keep: NDArray[np.bool_], costs: tuple[float, ...]) -> NDArray[np.float64]:
        """Return the length of the longest path along the edges to keep; 0 where there is none."""
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
        *(inputs(keep, *ops) for keep in (live, every) for ops in ((4,), (2, 3), (2,), (3,))),
        *(longest(live, costs) for costs in PATH_COSTS),
        *(longest(every, costs) for costs in PATH_COSTS[3:]),
    ]
    of_constant = [
        np.ones(len(genes)),
        *count(every, 0, 2, 3, 4),
        *count(reaching, 2, 3),
        *(inputs(every, *ops) for ops in ((4,), (2, 3))),
    ]
    kept = [column * ~is_constant for column in columns] + [column * is_constant for column in of_constant]
    return np.stack(kept, axis=1).astype(np.float64)
