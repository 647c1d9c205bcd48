"""Selections of the architectures to measure on a new device, made before any of their latencies is seen.

A `TargetDevice` holds a device's latencies and gives out only those that are paid for. Selections get the target, so
they cannot see any other. Only the scoring, after the predictor is fitted, sees the whole column.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.bench.tables import Positions
from latlab.harness.store.vocabulary import Status
from latlab.predictors import Predictor
from latlab.predictors.acquisition import CANDIDATES, REFERENCE, choose
from latlab.predictors.base import FloatArray, IntArray
from latlab.search_spaces import Architecture

__all__ = ["SELECTIONS", "TargetDevice", "chosen_by_design"]


class TargetDevice:
    """A device whose measurements must be paid for.

    Args:
        genes: the genes of all architectures of the table, shape (m, genes).
        latency_ms: their latencies, shape (m,).
        pool: the rows that may be bought.
    """

    def __init__(self, genes: IntArray, latency_ms: FloatArray, pool: Positions) -> None:
        self.genes, self.pool = genes, pool
        self._latency_ms = latency_ms
        self._paid: dict[int, None] = {}

    @property
    def paid(self) -> Positions:
        """The rows bought so far, in the order of buying."""
        return np.array(list(self._paid), dtype=np.intp)

    def pay(self, rows: Positions) -> FloatArray:
        """Buy `rows`, and return their latencies in milliseconds.

        Raises:
            ValueError: a row is not in the pool.
        """
        if not np.isin(rows, self.pool).all():
            raise ValueError("rows outside the pool cannot be measured")
        self._paid |= dict.fromkeys(rows.tolist())
        return self._latency_ms[rows]

    def fit(self, predictor: Predictor) -> None:
        """Adapt `predictor` to the measurements bought so far."""
        rows = self.paid
        predictor.adapt(self.genes[rows], self._latency_ms[rows])


SelectionRule = Callable[[Predictor, TargetDevice, Positions, int, np.random.Generator], None]
"""A selection buys architectures of a target until it has n. Its third argument holds the rows that must come first."""


def at_random(predictor: Predictor, target: TargetDevice, first: Positions, n: int, rng: np.random.Generator) -> None:
    """Buy rows uniformly at random. With equal generators, a smaller n buys a prefix of what a larger n buys."""
    drawn = rng.permutation(target.pool)
    target.pay(first)
    target.pay(drawn[~np.isin(drawn, first)][: n - len(first)])


def designed(predictor: Predictor, target: TargetDevice, first: Positions, n: int, rng: np.random.Generator) -> None:
    """Buy all rows at once, chosen from the prior before anything is measured."""
    predictor.adapt(target.genes[:0], [])
    rows = chosen_by_design(predictor, target, first, n - len(first), rng)
    target.pay(np.concatenate([first, rows]))


def sequential(predictor: Predictor, target: TargetDevice, first: Positions, n: int, rng: np.random.Generator) -> None:
    """Buy as `latlab onboard` measures: by the same loop, one architecture at a time."""
    space = predictor.space
    row_of = dict(zip(space.architectures(target.genes[target.pool]), target.pool.tolist(), strict=True))
    loop = ClosedLoop(space, predictor, budget=n, seed=int(rng.integers(2**31)), as_written=True, pool=list(row_of))

    def buy(arch: Architecture) -> None:
        latency_ms = float(target.pay(np.array([row_of[arch]]))[0])
        loop.record(arch.text, Status.OK, latency_ms, None)

    for arch in space.architectures(target.genes[first]):
        buy(arch)
    for text in loop.proposals():
        buy(space.parse(text))


def diverse(predictor: Predictor, target: TargetDevice, first: Positions, n: int, rng: np.random.Generator) -> None:
    """Choose as NASFLAT's sampler does: architectures whose analytic costs differ, whatever the predictor."""
    from latlab.predictors.nasflat import sampler  # torch is heavy, and no other selection needs it

    open_ = np.setdiff1d(target.pool, first)
    rows = sampler.sample(predictor.space, target.genes[open_], n - len(first), seed=int(rng.integers(2**31)))
    target.pay(np.concatenate([first, open_[rows]]))


SELECTIONS: dict[str, SelectionRule] = {
    "random": at_random,
    "designed": designed,
    "sequential": sequential,
    "diverse": diverse,
}
"""The selections by name."""


def chosen_by_design(
    predictor: Predictor, target: TargetDevice, pending: Positions, n: int, rng: np.random.Generator
) -> Positions:
    """Return the `n` rows that reduce the posterior variance most, given the paid and the `pending` rows."""
    open_ = target.pool[~np.isin(target.pool, np.concatenate([target.paid, pending]))]
    candidates = rng.choice(open_, min(CANDIDATES, len(open_)), replace=False)
    reference = rng.choice(len(target.genes), min(REFERENCE, len(target.genes)), replace=False)
    chosen = choose(predictor, target.genes[candidates], target.genes[reference], n, target.genes[pending])
    return np.asarray(candidates[chosen])
