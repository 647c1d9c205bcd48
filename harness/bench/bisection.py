"""Hard tasks from any table: sources and targets that correlate as little as the table's devices permit.

NASFLAT makes its tasks this way (Akhauri and Abdelfattah, MLSys 2024). Devices are the nodes of a complete graph, and
an edge weighs minus the Spearman correlation of its devices' latencies. The heuristic of Kernighan and Lin (An
Efficient Heuristic Procedure for Partitioning Graphs, Bell System Technical Journal 49, 1970) bisects the graph so that
the cut has the greatest weight, which is the least correlation across it. Then both halves are trimmed to size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlab.harness.bench.tables import LatencyTable
from latlab.harness.bench.tasks import Split
from latlab.harness.errors import BadInputError
from latlab.predictors.base import FloatArray
from latlab.predictors.common.metrics import spearman

__all__ = ["Bisection", "bisect", "correlations", "hard_splits"]

SHARE = 0.75
"""The share of the devices in each attempt. All of them would give the same bisection each time."""
ATTEMPTS = 50
"""The number of bisections of random subsets."""
COMMON = 20
"""The fewest architectures that two devices must both have measured for their correlation."""


@dataclass(frozen=True)
class Bisection:
    """A split, and the mean correlation across it. The lower the correlation, the harder the task."""

    split: Split
    across: float


def hard_splits(table: LatencyTable, count: int, sources: int, targets: int, seed: int = 0) -> list[Bisection]:
    """Return up to `count` different splits with so many sources and targets, the hardest first.

    Raises:
        BadInputError: the table has too few devices, or two devices have too few architectures in common.
    """
    devices = list(table.latency_ms)
    if len(devices) < sources + targets:
        raise BadInputError(
            f"{table.name} has {len(devices)} devices, {sources} sources and {targets} targets were asked for",
            "Ask for fewer: --sources and --targets.",
        )
    rho = correlations(table)
    rng = np.random.default_rng(seed)
    found: dict[Split, float] = {}
    for _ in range(ATTEMPTS):
        size = max(sources + targets, 2 * max(sources, targets), round(SHARE * len(devices)))
        drawn = rng.permutation(len(devices))[:size]
        left, right = bisect(rho[np.ix_(drawn, drawn)], rng)
        sides = [drawn[left], drawn[right]]
        if rng.random() < 0.5:
            sides.reverse()
        if len(sides[0]) < sources or len(sides[1]) < targets:
            continue
        own, others = _trimmed(rho, sides[0], sides[1], sources, targets)
        split = Split(tuple(devices[i] for i in sorted(own)), tuple(devices[i] for i in sorted(others)))
        found[split] = float(rho[np.ix_(own, others)].mean())
    hardest = sorted(found.items(), key=lambda item: item[1])[:count]
    return [Bisection(split, across) for split, across in hardest]


def correlations(table: LatencyTable) -> FloatArray:
    """Return Spearman's correlation of each pair of devices over the architectures that both measured, shape (d, d).

    Raises:
        BadInputError: two devices have too few architectures in common.
    """
    names = list(table.latency_ms)
    rho = np.eye(len(names))
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            first, second = table.latency_ms[a], table.latency_ms[b]
            both = ~(np.isnan(first) | np.isnan(second))
            if both.sum() < COMMON:
                raise BadInputError(
                    f"{table.name}: {a} and {b} have {both.sum()} architectures in common, too few to correlate them",
                    f"At least {COMMON} are needed; remove one of the columns.",
                )
            rho[i, j] = rho[j, i] = spearman(first[both], second[both])
    return np.nan_to_num(rho)


def bisect(weight: FloatArray, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return two halves of the nodes (equal, or one apart) with a light cut.

    Args:
        weight: weights of the edges, symmetric, shape (n, n). The diagonal is ignored.
        rng: draws the first bisection. From there pairs are exchanged as long as that reduces the cut.
    """
    side = np.zeros(len(weight), dtype=bool)
    side[rng.permutation(len(weight))[: len(weight) // 2]] = True
    gain = 1.0
    while gain > 1e-12:
        gain, swaps = _best_exchange(weight, side)
        if gain > 1e-12:
            side[swaps] = ~side[swaps]
    return np.flatnonzero(side), np.flatnonzero(~side)


def _best_exchange(weight: FloatArray, side: NDArray[np.bool_]) -> tuple[float, list[int]]:
    """Make one pass of the paper: exchange and lock the best pair until none is left, then keep the best prefix.

    Returns:
        How much lighter the cut becomes, and the nodes to exchange.
    """
    side, free = side.copy(), np.ones(len(side), dtype=bool)
    gains: list[float] = []
    swaps: list[int] = []
    for _ in range(len(side) // 2):
        across = side[:, None] != side[None, :]
        np.fill_diagonal(weight := weight.copy(), 0)
        d = np.where(across, weight, -weight).sum(axis=1)  # external minus internal cost of each node
        gain = np.where(np.outer(side & free, ~side & free), d[:, None] + d[None, :] - 2 * weight, -np.inf)
        a, b = np.unravel_index(np.argmax(gain), gain.shape)
        gains.append(float(gain[a, b]))
        swaps += [int(a), int(b)]
        side[[a, b]] = side[[b, a]]
        free[[a, b]] = False
    best = int(np.argmax(np.cumsum(gains)))
    return float(np.cumsum(gains)[best]), swaps[: 2 * (best + 1)]


def _trimmed(
    rho: FloatArray, own: NDArray[np.intp], others: NDArray[np.intp], sources: int, targets: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Remove devices one by one, each time the one that correlates most with the other side."""
    while len(own) > sources or len(others) > targets:
        across = rho[np.ix_(own, others)]
        if len(own) - sources >= len(others) - targets:
            own = np.delete(own, np.argmax(across.mean(axis=1)))
        else:
            others = np.delete(others, np.argmax(across.mean(axis=0)))
    return own, others
