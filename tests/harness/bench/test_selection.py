"""Tests that no selection, fit or prediction sees a label that was not paid for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latlab.harness.bench.evaluate import adapt
from latlab.harness.bench.protocols import PROTOCOLS, generator
from latlab.harness.bench.selection import SEQUENTIAL, TargetDevice, select
from latlab.harness.bench.tables import LatencyTable, Positions, read_table
from latlab.predictors import SourceDevice, create
from latlab.predictors.base import FloatArray
from latlab.predictors.samplers import ORACLE, SAMPLERS

SELECTIONS = [name for name in (*SAMPLERS, SEQUENTIAL) if name != ORACLE]


@pytest.fixture(scope="module")
def table(table_file: Path) -> LatencyTable:
    return read_table(table_file, "fbnet")


def paid_and_predicted(
    table: LatencyTable, selection: str, latency: FloatArray, pool: Positions
) -> tuple[Positions, FloatArray]:
    predictor = create("ridge", table.space, seed=0)
    target = TargetDevice(table.genes, latency, pool)
    sources = [SourceDevice("fast", table.genes, table.column("fast"))]
    select(selection, predictor, target, pool[:2], 8, generator(0, "test"), sources=sources)
    target.fit(predictor)
    return target.paid, predictor.predict(table.genes).mean_ms


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("change", ["permuted", "missing", "absurd"])
def test_unpaid_labels_change_nothing(table: LatencyTable, selection: str, change: str) -> None:
    latency, pool = table.column("slow"), table.measured("slow")
    paid, predicted = paid_and_predicted(table, selection, latency, pool)
    unpaid = np.setdiff1d(np.arange(len(latency)), paid)
    other = latency.copy()
    rng = np.random.default_rng(1)
    other[unpaid] = {"permuted": rng.permutation(latency[unpaid]), "missing": np.nan, "absurd": 1e9}[change]
    again, predicted_again = paid_and_predicted(table, selection, other, pool)
    assert np.array_equal(paid, again)
    assert np.array_equal(predicted, predicted_again)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("protocol", ["latlab", "nasflat"])
def test_a_budget_is_spent_without_sight_of_the_rest_of_the_table(
    table: LatencyTable, selection: str, protocol: str
) -> None:
    def spent(column: FloatArray) -> Positions:
        seen = LatencyTable(table.name, table.space, table.genes, {**table.latency_ms, "slow": column})
        predictor = create("ridge", table.space, seed=0)
        sources = PROTOCOLS[protocol].sources(seen, ["fast", "launch"], 50, 0)
        predictor.pretrain(sources)
        found = adapt(predictor, seen, "slow", 9, PROTOCOLS[protocol], selection, 0, sources=sources)
        assert found is not None
        return found.paid

    paid = spent(table.column("slow"))
    unpaid = np.setdiff1d(np.arange(len(table.genes)), paid)
    other = table.column("slow").copy()
    other[unpaid] = np.random.default_rng(2).permutation(other[unpaid])
    assert np.array_equal(paid, spent(other))


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_measurement_counts(table: LatencyTable, selection: str) -> None:
    """What must come first is part of the budget, and nothing is paid twice or outside the pool."""
    pool = table.measured("odd")
    paid, _ = paid_and_predicted(table, selection, table.column("odd"), pool)
    assert len(paid) == len(set(paid.tolist())) == 8
    assert paid[:2].tolist() == pool[:2].tolist()
    assert np.isin(paid, pool).all()


def test_a_paid_label_of_another_device_is_refused(table: LatencyTable) -> None:
    target = TargetDevice(table.genes, table.column("odd"), table.measured("odd"))
    with pytest.raises(ValueError, match="pool"):
        target.pay(np.array([0]))


def test_random_budgets_are_nested(table: LatencyTable) -> None:
    def paid(n: int) -> list[int]:
        predictor = create("ridge", table.space, seed=0)
        spent = adapt(predictor, table, "slow", n, PROTOCOLS["latlab"], "random", 3)
        assert spent is not None
        return spent.paid.tolist()

    assert paid(12)[:5] == paid(5)


def test_designs_beat_chance_in_variance(table: LatencyTable) -> None:
    """The purpose of it: less posterior variance over the space than random choices leave."""

    def variance(selection: str, seed: int) -> float:
        predictor = create("ridge", table.space, seed=0)
        adapt(predictor, table, "slow", 8, PROTOCOLS["latlab"], selection, seed)
        return float(np.trace(predictor.covariance(table.genes, table.genes)))

    assert variance("designed", 0) < np.mean([variance("random", seed) for seed in range(3)])
