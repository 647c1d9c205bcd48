"""Selections of the architectures to measure on a new device, made before any of their latencies is seen.

A `TargetDevice` holds a device's latencies and gives out only those that are paid for. Selections get the target, so
they cannot see any other; only the sampler `latency-oracle` is told all. Otherwise only the scoring sees the whole
column, after the predictor is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.sampling import SEQUENTIAL
from latlab.harness.bench.tables import Positions
from latlab.harness.errors import BadInputError
from latlab.harness.store.vocabulary import Status
from latlab.predictors import Predictor, SourceDevice
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.encodings.table import EncodingTable
from latlab.predictors.samplers import ORACLE, Pool, parse_sampler
from latlab.search_spaces import Architecture

__all__ = ["SEQUENTIAL", "TargetDevice", "check_selection", "select"]


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

    def told_to_an_oracle(self) -> FloatArray:
        """Return all latencies, shape (m,), NaN where there is none: what no selection on a new device can know."""
        return self._latency_ms

    def fit(self, predictor: Predictor) -> None:
        """Adapt `predictor` to the measurements bought so far."""
        rows = self.paid
        predictor.adapt(self.genes[rows], self._latency_ms[rows])


def check_selection(text: str) -> str:
    """Return a selection's text in its full form: `sequential`, or a sampler (`predictors.samplers`).

    Raises:
        BadInputError: there is no such selection.
    """
    if text == SEQUENTIAL:
        return text
    try:
        return parse_sampler(text).text
    except ValueError as error:
        raise BadInputError(f"--selection: {error}", "`sequential` chooses as onboard does, one at a time.") from error


def select(
    text: str,
    predictor: Predictor,
    target: TargetDevice,
    first: Positions,
    n: int,
    rng: np.random.Generator,
    *,
    sources: Sequence[SourceDevice] = (),
    encodings: EncodingTable | None = None,
) -> None:
    """Buy `first` and as many more architectures of a target as make n.

    Args:
        text: a selection that `check_selection` accepts.
        sources: the devices that the predictor is pre-trained on.
        encodings: what samplers with an encoding read instead of computing it.

    Raises:
        BadInputError: the sampler cannot choose as many.
    """
    if text == SEQUENTIAL:
        _sequential(predictor, target, first, n, rng)
        return
    sampler = parse_sampler(text)
    pool = Pool(
        predictor.space,
        target.genes,
        target.pool,
        taken=first,
        predictor=predictor,
        sources=sources,
        table=encodings,
        latency_ms=target.told_to_an_oracle() if sampler.name == ORACLE else None,
    )
    try:
        rows = sampler.choose(pool, n - len(first), rng)
    except ValueError as error:
        raise BadInputError(f"--selection {text}: {error}") from error
    target.pay(np.concatenate([first, rows]).astype(np.intp))


def _sequential(predictor: Predictor, target: TargetDevice, first: Positions, n: int, rng: np.random.Generator) -> None:
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
