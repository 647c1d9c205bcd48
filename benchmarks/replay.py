"""The closed loop, replayed on all columns of published tables: what it saves, and whether it knows how good it is.

    python benchmarks/replay.py --data FOLDER [--columns development] [--seeds 1] [--budget 20]

FOLDER has the published tables of NAS-Bench-201 and FBNet. Each column is onboarded as `latlab onboard` does, without
source devices, and by random samples. How many samples and device-seconds it takes to a rank correlation of .90, of .95
and of 98 % of the ceiling is compared with random samples, and with 20, as the papers take. A column's ceiling is that
of its labels' noise where the table has repeated networks (`noise_ceiling`), else a fit to 2,000 labels. A further
variant chooses networks for accuracy near the column's 30th percentile. It prints medians over runs, and writes
`results/replay.json`. The constants of the loop's own estimate were chosen on the columns `development`: those that are
a target of none of the published tasks.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from latlab.harness.distributed.local import one_thread

one_thread()

import numpy as np  # noqa: E402
from common import RESULTS, save, show  # noqa: E402

from latlab.harness.bench.ceilings import flexible_fit, noise_ceiling  # noqa: E402
from latlab.harness.bench.replay import Replay, ReplayPlan, replay  # noqa: E402
from latlab.harness.bench.simulation import CLOSE  # noqa: E402
from latlab.harness.bench.tables import LatencyTable, read_table  # noqa: E402
from latlab.harness.bench.tasks import PUBLISHED, published_task  # noqa: E402

FILES = {
    "nasbench201_latency_ms.parquet": "nasbench201",
    "nasbench201_eagle_latency_ms.parquet": "nasbench201",
    "fbnet_latency_ms.parquet": "fbnet",
}
GOALS = ("0.90", "0.95", "98 % of the ceiling")
PAPERS = 20
"""Samples that HELP, MultiPredict and NASFLAT take."""
SAMPLES = (5, 7, 10, 15, 20)
METHODS: dict[str, dict[str, Any]] = {
    "loop": {},
    "near": {},
    "random": {"at_random": True},
}


def targets(data: Path) -> dict[str, set[str]]:
    """Return the targets of the published tasks of each space."""
    found: dict[str, set[str]] = {}
    for name in PUBLISHED:
        if not name.startswith(("HAT", "OFA")):
            task = published_task(name, data)
            found.setdefault(task.space, set()).update(one for split in task.splits for one in split.targets)
    return found


def ceiling_of(table: LatencyTable, device: str) -> float:
    """Return the rank correlation that the best predictor would have."""
    ceiling = noise_ceiling(table, device)
    return flexible_fit(table, device, samples=2000).spearman if np.isnan(ceiling) else ceiling


def first(run: Replay, wanted: float) -> tuple[int | None, float | None]:
    """Return the samples and the device-seconds after which a rank correlation is reached; None if it never is."""
    found = next((point for point in run.points if point.spearman >= wanted), None)
    return (found.n, found.device_s) if found else (None, None)


def of_column(path: Path, table: LatencyTable, device: str, ceiling: float, budget: int, seed: int) -> dict[str, Any]:
    """Return the figures of one column and seed."""
    space = table.space.name
    near = float(np.nanquantile(table.column(device), 0.3))
    record: dict[str, Any] = {"space": space, "column": device, "seed": seed, "ceiling": ceiling}
    for method, options in METHODS.items():
        start = time.process_time()
        plan = ReplayPlan(
            path,
            space,
            device,
            budget=budget,
            seed=seed,
            near_ms=near if method == "near" else None,
            scored_near_ms=near,
            **options,
        )
        run = replay(plan)
        at = {point.n: point for point in run.points}
        record[method] = {
            "cpu_s": time.process_time() - start,
            "reached": {goal: first(run, w) for goal, w in zip(GOALS, (0.9, 0.95, 0.98 * ceiling), strict=True)},
            "device_s": {n: at[n].device_s for n in SAMPLES if n in at},
            "spearman": {n: at[n].spearman for n in SAMPLES if n in at},
            "expected": {n: at[n].expected_spearman for n in SAMPLES if n in at},
            "low": {n: at[n].expected_low for n in SAMPLES if n in at},
            "high": {n: at[n].expected_high for n in SAMPLES if n in at},
            "near_mape_percent": {n: at[n].near_mape_percent for n in SAMPLES if n in at},
        }
    return record


def median(values: Sequence[float | None]) -> float | None:
    """Return the median, with None for more than all others; None if it is such a value."""
    found = float(np.median([np.inf if value is None else value for value in values])) if values else np.inf
    return found if np.isfinite(found) else None


def cost_table(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return medians over runs of what each goal takes, and of the ratios to random samples of the same runs."""
    rows = []
    for goal in GOALS:
        # A goal that neither method reaches with this budget is no goal for the column.
        own = [one for one in records if one["loop"]["reached"][goal][0] or one["random"]["reached"][goal][0]]
        row: dict[str, Any] = {"goal": goal, "runs": len(own)}
        for method in ("loop", "random"):
            row[f"{method}: n"] = median([one[method]["reached"][goal][0] for one in own])
            row[f"{method}: s"] = median([one[method]["reached"][goal][1] for one in own])
        for title, other in (("s / random", "random"), (f"s / random {PAPERS}", None)):
            ratios: list[float | None] = []
            for one in own:
                mine = one["loop"]["reached"][goal][1]
                base = one["random"]["reached"][goal][1] if other else one["random"]["device_s"][PAPERS]
                ratios.append(None if mine is None else 0.0 if base is None else mine / base)
            row[title] = median(ratios)
        row["never: loop"] = sum(one["loop"]["reached"][goal][0] is None for one in own)
        row["never: random"] = sum(one["random"]["reached"][goal][0] is None for one in own)
        rows.append(row)
    return rows


def estimate_table(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each number of samples, how near the loop's own estimate of its rank correlation is to the truth."""
    rows = []
    for n in SAMPLES:
        own = [one["loop"] for one in records if one["loop"]["expected"].get(n) is not None]
        off = np.array([one["expected"][n] - one["spearman"][n] for one in own])
        held = [one["low"][n] <= one["spearman"][n] <= one["high"][n] for one in own]
        if len(own):
            rows.append(
                {
                    "n": n,
                    "runs": len(own),
                    f"within {CLOSE}, %": 100 * float(np.mean(np.abs(off) <= CLOSE)),
                    "bias": float(off.mean()),
                    "truth in the range, %": 100 * float(np.mean(held)),
                    "Spearman, loop": float(np.mean([one["loop"]["spearman"][n] for one in records])),
                    "random": float(np.mean([one["random"]["spearman"][n] for one in records])),
                    "near, MAPE %": median([one["loop"]["near_mape_percent"][n] for one in records]),
                    "with --near": median([one["near"]["near_mape_percent"][n] for one in records]),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"))
    parser.add_argument("--columns", choices=["all", "development"], default="all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "replay.json")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data (or LATLAB_DATA) names the folder of the published tables")
    data = Path(arguments.data)
    published = targets(data)
    tables = {file: read_table(data / file, space) for file, space in FILES.items()}
    ceilings: dict[str, dict[str, float]] = {file: {} for file in FILES}
    records: list[dict[str, Any]] = []
    columns = [[(file, device) for device in table.latency_ms] for file, table in tables.items()]
    todo = [
        (seed, file, device)
        for seed in range(arguments.seeds)
        for one in zip_longest(*columns)  # by turns, so that a run that is interrupted has columns of all tables
        for file, device in filter(None, one)
        if arguments.columns == "all" or device not in published[FILES[file]]
    ]
    try:
        for seed, file, device in todo:
            if device not in ceilings[file]:
                ceilings[file][device] = ceiling_of(tables[file], device)
            ceiling = ceilings[file][device]
            records.append(of_column(data / file, tables[file], device, ceiling, arguments.budget, seed))
            print(f"{len(records)}/{len(todo)} {FILES[file]} {device}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: what follows is of the columns above")
    groups = {
        "all columns": records,
        "targets of published tasks": [one for one in records if one["column"] in published[one["space"]]],
        **{space: [one for one in records if one["space"] == space] for space in dict.fromkeys(FILES.values())},
    }
    figures: dict[str, Any] = {}
    for title, own in groups.items():
        if own:
            figures[title] = {"cost": cost_table(own), "estimate": estimate_table(own)}
            show(f"{title}: samples and device-seconds to reach a rank correlation (medians)", figures[title]["cost"])
            show(f"{title}: the loop's own estimate, and accuracy", figures[title]["estimate"])
    cpu = {method: float(np.mean([one[method]["cpu_s"] for one in records])) for method in METHODS}
    save(
        arguments.out,
        {
            "seeds": arguments.seeds,
            "columns": [len(records), len(todo)],
            "budget": arguments.budget,
            "cpu_s": cpu,
            **figures,
            "runs": records,
        },
    )


if __name__ == "__main__":
    main()
