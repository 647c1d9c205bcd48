"""Replay of onboarding on a latency table: the loop that users run, on a device whose latencies are known."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.sample_cost import SampleCost
from latlab.harness.active_learning.stopping import FEWEST, Goal, ended_by
from latlab.harness.architectures import space_named
from latlab.harness.bench.protocols import generator
from latlab.harness.bench.tables import LatencyTable, read_table
from latlab.harness.errors import BadInputError
from latlab.harness.store.vocabulary import Status
from latlab.predictors import Predictor
from latlab.predictors.acquisition import FROM_PRIOR
from latlab.predictors.common.metrics import mape_percent, spearman, within_percent
from latlab.search_spaces import Architecture

__all__ = ["IN_FLIGHT", "Replay", "ReplayPlan", "ReplayPoint", "check", "replay"]

IN_FLIGHT = 3
"""Networks that are proposed and have no label yet: with one export process, `onboard` has so many under way."""
SCORED = 2000
"""Networks of the table on which predictions are scored, drawn at random: ranks are then known to a thousandth."""
NEAR = 0.15
"""Largest relative difference to a latency that counts as near it."""


@dataclass(frozen=True)
class ReplayPlan:
    """What is replayed: an onboarding of one column of a table."""

    table: Path
    space: str
    target: str
    """The column."""
    budget: int = 20
    """The most samples."""
    goals: tuple[Goal, ...] = ()
    """The first one that is reached ends the run. Time is that of the simulated device."""
    noise_percent: float = 0.0
    """Relative standard deviation of the labels around the table's latencies; labels state it."""
    predictor: PredictorOptions = PredictorOptions()
    near_ms: float | None = None
    """Latency around which accuracy is wanted; None for the whole space."""
    scored_near_ms: float | None = None
    """Latency near which errors are given; None for `near_ms`."""
    cost: SampleCost = SampleCost()
    """What a sample costs on the simulated device."""
    in_flight: int = IN_FLIGHT
    at_random: bool = False
    """Whether networks are drawn at random instead of chosen, for comparison."""
    seed: int = 0


@dataclass(frozen=True)
class ReplayPoint:
    """How good the predictor was after its first n samples. Percentages are from 0 to 100."""

    n: int
    device_s: float
    """Seconds that the device has spent on them."""
    spearman: float
    mape_percent: float
    within_10_percent: float
    expected_spearman: float | None
    """The loop's own estimate; None below `FEWEST` samples, and for networks at random."""
    expected_low: float | None
    expected_high: float | None
    """The range that it gives, which is to hold the truth in nine of ten runs."""
    expected_within_10_percent: float | None
    near_mape_percent: float | None
    """Mean error in percent of networks within `NEAR` of the latency that errors are given near; None without."""


@dataclass(frozen=True)
class Replay:
    """The result of a replay."""

    seed: int
    archs: tuple[str, ...]
    """The networks in the order in which they were chosen."""
    points: tuple[ReplayPoint, ...]
    reached: str | None
    """The goal that ended it; None if the budget did."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def replay(plan: ReplayPlan) -> Replay:
    """Run the closed loop once on a column of a table.

    Networks are proposed and labels recorded as in an onboarding: `in_flight` networks are under way all the time.
    Predictors see networks as the table has them (`--as-written`), and have no source devices.

    Raises:
        BadInputError: the table cannot be read, lacks the column, or is too small.
    """
    return _Run(plan).result()


def check(plan: ReplayPlan) -> None:
    """Raise `BadInputError` for a plan that cannot be replayed: of a table, a column, or numbers that make no sense."""
    rows = _table(plan.table, plan.space).measured(plan.target)
    fresh = predictor_for(plan.predictor, space_named(plan.space), seed=plan.seed)
    if plan.budget < max(1, len(fresh.wanted())):
        raise BadInputError(
            f"the predictor {fresh.name} needs {max(1, len(fresh.wanted()))} networks, the budget is {plan.budget}"
        )
    if len(rows) < plan.budget + FEWEST:
        raise BadInputError(
            f"{plan.table} has {len(rows)} latencies of {plan.target}, too few for a budget of {plan.budget}",
            f"Give --budget {len(rows) - FEWEST} or less." if len(rows) > FEWEST else "A larger table is needed.",
        )
    if not 0 <= plan.noise_percent <= 1000:
        raise BadInputError(f"the noise must be a percentage from 0 to 1000, not {plan.noise_percent}")
    if plan.near_ms is not None and not 0 < plan.near_ms < math.inf:
        raise BadInputError(f"the latency to be accurate near must be a positive number of ms, not {plan.near_ms}")


class _Run:
    """One replay under way."""

    def __init__(self, plan: ReplayPlan) -> None:
        check(plan)
        self._plan = plan
        table = _table(plan.table, plan.space)
        rows = table.measured(plan.target)
        self._column, self._table = table.column(plan.target), table
        archs = _architectures(plan.table, plan.space)
        pool = [archs[row] for row in rows.tolist()]
        self._latency_ms = dict(zip(pool, self._column[rows].tolist(), strict=True))
        self._rng = generator(plan.seed, "noise", plan.target)
        self._scored = generator(plan.seed, "scored", plan.target).permutation(rows)[: SCORED + plan.budget]
        self._chosen: list[Architecture] = []
        self._device_s = 0.0
        self._points: list[ReplayPoint] = []
        predictor, self._scorer = (
            predictor_for(plan.predictor, table.space, seed=plan.seed, sources=()) for _ in range(2)
        )
        self._loop = ClosedLoop(
            table.space,
            predictor,
            budget=plan.budget,
            seed=plan.seed,
            goals=plan.goals,
            as_written=True,
            pool=pool,
            near_ms=plan.near_ms,
            elapsed_s=lambda: self._device_s,
        )

    def result(self) -> Replay:
        waiting: deque[Architecture] = deque()
        for text in self._proposals():
            waiting.append(self._table.space.parse(text))
            if len(waiting) >= self._plan.in_flight:
                self._measure(waiting.popleft())
        for arch in waiting:
            self._measure(arch)
        reached = ended_by(self._loop.reached, self._loop.standings())
        return Replay(
            self._plan.seed,
            tuple(arch.text for arch in self._chosen),
            tuple(self._points),
            None if reached is None else str(reached),
        )

    def _proposals(self) -> Iterator[str]:
        if not self._plan.at_random:
            yield from self._loop.proposals()
            return
        archs = list(self._latency_ms)
        for place in generator(self._plan.seed, "random", self._plan.target).permutation(len(archs)):
            if self._loop.proposed >= self._plan.budget or self._loop.good_enough():
                return
            self._loop.expect([archs[place].text])
            yield archs[place].text

    def _measure(self, arch: Architecture) -> None:
        """Give the loop a label of a network, and note how good it is with it."""
        relative = self._plan.noise_percent / 100
        truth = self._latency_ms[arch]
        label = truth * float(np.exp(relative * self._rng.standard_normal())) if relative else truth
        self._loop.record(arch.text, Status.OK, label, relative * label)
        self._device_s += self._plan.cost.seconds(truth)
        self._chosen.append(arch)
        self._points.append(self._point())

    def _fitted(self) -> Predictor:
        """Return a predictor that is fitted to all labels.

        The loop chooses its first networks by the prior, so its own predictor must not see their labels before.
        """
        loop = self._loop
        if loop.measured >= FROM_PRIOR:
            return loop.fit(always=True)
        self._scorer.adapt(loop.support(), loop.support_ms())
        return self._scorer

    def _point(self) -> ReplayPoint:
        predictor = self._fitted()
        paid = self._table.rows_of(self._chosen)
        test = self._scored[~np.isin(self._scored, paid)]
        predicted, truth = predictor.predict(self._table.genes[test]).mean_ms, self._column[test]
        tells = self._loop.measured >= FEWEST and not self._plan.at_random
        expected = self._loop.accuracy() if tells else None
        rank = expected.spearman if expected else None
        near = self._plan.scored_near_ms or self._plan.near_ms
        close = np.abs(truth - near) <= NEAR * near if near else np.zeros(len(truth), dtype=bool)
        return ReplayPoint(
            n=len(self._chosen),
            device_s=self._device_s,
            spearman=spearman(predicted, truth),
            mape_percent=mape_percent(predicted, truth),
            within_10_percent=within_percent(predicted, truth),
            expected_spearman=rank.value if rank else None,
            expected_low=rank.low if rank else None,
            expected_high=rank.high if rank else None,
            expected_within_10_percent=expected.within(10).value if expected else None,
            near_mape_percent=mape_percent(predicted[close], truth[close]) if close.any() else None,
        )


@lru_cache(4)
def _table(path: Path, space: str) -> LatencyTable:
    return read_table(path, space)


@lru_cache(4)
def _architectures(path: Path, space: str) -> list[Architecture]:
    table = _table(path, space)
    return table.space.architectures(table.genes)
