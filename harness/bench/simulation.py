"""Many replays of one onboarding, with different seeds, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from latlab.harness.bench.replay import Replay, ReplayPlan, check, replay
from latlab.harness.distributed.engines import in_parallel

__all__ = ["CLOSE", "points_of", "simulate", "summary"]

CLOSE = 0.03
"""Error of an expected rank correlation that is small enough to stop by."""


def simulate(
    plan: ReplayPlan,
    *,
    seeds: int = 10,
    engine: str = "local",
    jobs: int = 1,
    finished: Callable[[Replay], None] = lambda one: None,
) -> list[Replay]:
    """Replay an onboarding with the seeds of the plan and the `seeds` - 1 after it.

    Args:
        plan: what is replayed.
        seeds: the number of replays.
        engine: where they are replayed, as `in_parallel`; each node needs the table at the same place.
        jobs: the number of processes. With 1 the work is done in this process.
        finished: called with each replay as it ends.

    Returns:
        The replays, in the order of their seeds.

    Raises:
        BadInputError: the table cannot be read, lacks the column, or is too small.
    """
    check(plan)
    found: dict[int, Replay] = {}
    plans = [replace(plan, seed=plan.seed + i) for i in range(seeds)]
    for i, one in in_parallel(replay, plans, engine=engine, jobs=jobs):
        found[i] = one
        finished(one)
    return [found[i] for i in range(seeds)]


def points_of(replays: Sequence[Replay]) -> pd.DataFrame:
    """Return a row for each seed and number of samples, with the fields of `ReplayPoint`."""
    return pd.DataFrame([{"seed": one.seed, **asdict(point)} for one in replays for point in one.points])


def summary(replays: Sequence[Replay]) -> pd.DataFrame:
    """Return means over the seeds for each number of samples that all of them reached, one row each.

    Columns: n, runs, device_s, spearman, spearman_std, expected_spearman, close_percent (the share of runs whose
    expected rank correlation is within `CLOSE` of the truth), mape_percent, within_10_percent, near_mape_percent.
    """
    points = points_of(replays)
    off = (points["expected_spearman"].astype(float) - points["spearman"]).abs()
    points["close_percent"] = np.where(off.isna(), np.nan, 100.0 * (off <= CLOSE))
    groups = points.groupby("n", sort=True)
    names = ["device_s", "spearman", "expected_spearman", "close_percent", "mape_percent", "within_10_percent"]
    means = groups[names].mean() if len(points) else points[names]
    means.insert(0, "runs", groups.size())
    means.insert(3, "spearman_std", groups["spearman"].std(ddof=0))
    means["near_mape_percent"] = groups["near_mape_percent"].mean()
    return means.reset_index()
