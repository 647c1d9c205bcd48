"""Tests of replays: they are the loop of a real onboarding, they repeat, and they say what is wrong with a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness import Lab
from latlab.harness.active_learning.stopping import parse_goals
from latlab.harness.bench.replay import ReplayPlan, replay
from latlab.harness.bench.simulation import points_of, simulate, summary
from latlab.harness.errors import BadInputError
from latlab.harness.fleet import fleet
from latlab.harness.measurement import scheduler
from latlab.search_spaces import get

SPACE = get("nasbench201")


def write_table(path: Path, count: int | None = None) -> Path:
    """Write a table of a device: a share of the space, or all of it, with latencies in ms that are sums of operations.

    Dead edges take no time, because the simulated device is asked for the network that the exported file holds.
    """
    archs = list(SPACE.enumerate()) if count is None else SPACE.sample(count, 1)
    genes = SPACE.canonical_genes(SPACE.genes(archs))
    factors = 1 + 0.3 * np.random.default_rng(3).random((genes.shape[1], 5))
    per_operation = factors * [0.05, 0.2, 2.0, 5.0, 0.7]
    latency = 1 + per_operation[np.arange(genes.shape[1]), genes].sum(axis=1)
    pd.DataFrame({"arch": [arch.text for arch in archs], "pi": latency.round(6)}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ReplayPlan:
    path = write_table(tmp_path_factory.mktemp("tables") / "table.csv", 400)
    return ReplayPlan(path, "nasbench201", "pi", budget=12)


def test_learns_and_repeats(plan: ReplayPlan) -> None:
    first = replay(plan)
    assert len(first.points) == len(set(first.archs)) == 12
    assert first.points[-1].spearman > 0.95
    assert first.points[3].expected_spearman is None
    assert first.points[-1].expected_spearman == pytest.approx(first.points[-1].spearman, abs=0.05)
    assert np.all(np.diff([point.device_s for point in first.points]) > 0)
    assert replay(plan) == first


def test_stops_at_a_goal(plan: ReplayPlan) -> None:
    run = replay(replace(plan, goals=parse_goals("6 samples")))
    assert (len(run.points), run.reached) == (6, "6 samples")
    run = replay(replace(plan, goals=parse_goals("2 s"), in_flight=1))
    assert run.reached == "2 s"
    assert run.points[-2].device_s < 2 <= run.points[-1].device_s


def test_noise_makes_it_worse_and_is_known(plan: ReplayPlan) -> None:
    clean, noisy = replay(plan), replay(replace(plan, noise_percent=40.0))
    assert noisy.points[-1].spearman < clean.points[-1].spearman
    assert noisy.points[-1].expected_spearman is not None
    assert noisy.points[-1].expected_spearman < (clean.points[-1].expected_spearman or 0)


def test_near_a_latency_errors_are_given(plan: ReplayPlan) -> None:
    assert replay(plan).points[-1].near_mape_percent is None
    near = replay(replace(plan, near_ms=5.0))
    assert near.points[-1].near_mape_percent is not None
    assert near.archs != replay(plan).archs


def test_many_seeds(plan: ReplayPlan) -> None:
    runs = simulate(replace(plan, budget=6), seeds=2, jobs=2)
    assert [one.seed for one in runs] == [0, 1]
    assert runs[1] == replay(replace(plan, budget=6, seed=1))
    assert len(points_of(runs)) == 12
    table = summary(runs)
    assert table["n"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["runs"].tolist() == [2] * 6
    assert table["spearman"].iloc[-1] == pytest.approx(np.mean([one.points[-1].spearman for one in runs]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "phone"}, "no column 'phone'"),
        ({"budget": 1000}, "400 latencies of pi, too few"),
        ({"budget": 0}, "the budget is 0"),
        ({"noise_percent": -1.0}, "percentage from 0"),
        ({"near_ms": 0.0}, "positive number of ms"),
        ({"table": Path("none.csv")}, "no such file"),
    ],
)
def test_plans_that_make_no_sense(plan: ReplayPlan, changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        replay(replace(plan, **changes))  # type: ignore[arg-type]


def test_chooses_what_an_onboarding_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated device with the same table and no noise; one network is exported while another one is timed."""
    monkeypatch.setattr(fleet, "MAX_EXPORTERS", 1)
    monkeypatch.setattr(scheduler, "EXPORT_LOOKAHEAD", 0)
    table = write_table(tmp_path / "table.csv")
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(
        f"devices:\n  pi:\n    transport: simulated\n    kind: ideal\n    table: {table}\n    column: pi\n"
    )
    lab = Lab(tmp_path / "latlab.db", inventory=inventory)
    result = lab.onboard(
        "pi", space="nasbench201", budget=9, policy="help", seed=4, as_written=True, out=tmp_path / "out"
    )
    run = replay(ReplayPlan(table, "nasbench201", "pi", budget=9, seed=4, in_flight=2))
    assert result.measurements.sort_values("id")["arch"].tolist() == list(run.archs)
