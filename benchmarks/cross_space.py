"""What labels of a device in one search space say of it in another: published columns of one name in two tables.

    python benchmarks/cross_space.py --data FOLDER [--columns development] [--seeds 5]

FOLDER has the published tables. For each column that two tables have, 20 random labels in one space and n random labels
in the other are given to `roost`, and all other networks of the second space are predicted; beside it stands `roost`
with the n labels alone. Neither has source devices. It prints means over columns, with standard deviations over seeds,
and writes `results/cross_space.json`. The constants of the model were chosen on the columns `development`: those that
are a target of none of the published tasks in the predicted space.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latlab.harness.distributed.local import one_thread

one_thread()

import numpy as np  # noqa: E402
from common import RESULTS, save, show  # noqa: E402

from latlab import search_spaces  # noqa: E402
from latlab.harness.bench.tables import LatencyTable, read_table  # noqa: E402
from latlab.predictors.base import OtherSpace  # noqa: E402
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman  # noqa: E402
from latlab.predictors.roost import Roost  # noqa: E402
from latlab.predictors.roost.joint_prior import joint_prior  # noqa: E402

NASBENCH, FBNET, OFA = "nasbench201", "fbnet", "ofa-mobilenetv3"
FILES = {
    NASBENCH: "nasbench201_latency_ms.parquet",
    FBNET: "fbnet_latency_ms.parquet",
    OFA: "ofa_mobilenetv3_latency_ms.parquet",
}
DIRECTIONS = ((NASBENCH, FBNET), (FBNET, NASBENCH), (NASBENCH, OFA), (FBNET, OFA), (OFA, NASBENCH), (OFA, FBNET))
DEVELOPMENT = {
    FBNET: ("gold_6240", "pixel3", "silver_4114", "silver_4210r", "titanx_1", "titanx_32", "titanxp_32"),
    NASBENCH: (
        *("1080ti_32", "essential_ph_1", "gold_6240", "samsung_a50", "samsung_s7"),
        *("silver_4114", "silver_4210r", "titanx_1", "titanx_32"),
    ),
}
OTHER_LABELS, BUDGETS = 20, (0, 1, 3, 5, 10)
FIGURES = ("spearman", "mape_percent", "coverage_percent")


def pairs(tables: Mapping[str, LatencyTable], columns: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the other space, the predicted space, and the column's name in each."""
    for other, space in DIRECTIONS:
        # OFA's table writes the name of one GPU in another way.
        known = {name.replace("titan_xp", "titanxp"): name for name in tables[other].latency_ms}
        for name in tables[space].latency_ms:
            plain = name.replace("titan_xp", "titanxp")
            if plain in known and (columns == "all" or (OFA not in (other, space) and name in DEVELOPMENT[space])):
                yield other, space, known[plain], name


def of_column(
    tables: Mapping[str, LatencyTable], other: str, space: str, columns: tuple[str, str], seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the figures of both models for one column and seed, at each number of labels."""
    rng = np.random.default_rng(seed)
    known = rng.choice(tables[other].measured(columns[0]), OTHER_LABELS, replace=False)
    order = rng.permutation(tables[space].measured(columns[1]))
    labels = tables[space].column(columns[1])
    told = OtherSpace(search_spaces.get(other), tables[other].genes[known], tables[other].column(columns[0])[known])
    for model, others in (("joint", [told]), ("single", [])):
        predictor = Roost(search_spaces.get(space))
        start = time.process_time()
        predictor.use_other_spaces(others)
        told_s = time.process_time() - start
        for n in BUDGETS:
            own, rest = order[:n], order[n:]
            start = time.process_time()
            predictor.adapt(tables[space].genes[own], labels[own])
            adapt_s = time.process_time() - start
            found = predictor.formula().predict(_features(tables[space])[rest])
            yield {
                "from": other,
                "to": space,
                "column": columns[1],
                "seed": seed,
                "model": model,
                "n": n,
                "spearman": spearman(found.mean_ms, labels[rest]),
                "mape_percent": mape_percent(found.mean_ms, labels[rest]),
                "coverage_percent": coverage_percent(found, labels[rest]),
                "told_s": told_s,
                "adapt_s": adapt_s,
            }


_FEATURES: dict[str, np.ndarray] = {}


def _features(table: LatencyTable) -> np.ndarray:
    if table.space.name not in _FEATURES:
        _FEATURES[table.space.name] = table.space.features(table.genes)
    return _FEATURES[table.space.name]


def summary(records: Sequence[Mapping[str, Any]], directions: Sequence[tuple[str, str]], title: str) -> dict[str, Any]:
    """Return means over columns of some directions and their standard deviations over seeds, for each n and model."""
    row: dict[str, Any] = {"what": title}
    mine = [one for one in records if (one["from"], one["to"]) in directions]
    for n in BUDGETS:
        for model in ("single", "joint"):
            cell = [one for one in mine if one["n"] == n and one["model"] == model]
            seeds = sorted({one["seed"] for one in cell})
            for figure in FIGURES:
                of_seed = [float(np.mean([one[figure] for one in cell if one["seed"] == seed])) for seed in seeds]
                row[f"{model} {figure} n={n}"] = {"mean": float(np.mean(of_seed)), "std": float(np.std(of_seed))}
    row["columns"] = len({(one["from"], one["to"], one["column"]) for one in mine})
    return row


def by_column(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over seeds for each column."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in records:
        found.setdefault((one["from"], one["to"], one["column"], one["n"], one["model"]), []).append(one)
    return [
        dict(zip(("from", "to", "column", "n", "model"), key, strict=True))
        | {figure: round(float(np.mean([one[figure] for one in cell])), 4) for figure in FIGURES}
        for key, cell in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"))
    parser.add_argument("--columns", choices=["all", "development"], default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "cross_space.json")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data (or LATLAB_DATA) names the folder of the published tables")
    tables = {space: read_table(arguments.data / file, space) for space, file in FILES.items()}
    records: list[dict[str, Any]] = []
    pretrain_s = {}
    for other, space, there, here in pairs(tables, arguments.columns):
        if f"{other} -> {space}" not in pretrain_s:
            start = time.process_time()
            joint_prior(search_spaces.get(other), search_spaces.get(space))
            pretrain_s[f"{other} -> {space}"] = time.process_time() - start
        for seed in range(arguments.seeds):
            records += of_column(tables, other, space, (there, here), seed)
    present = [one for one in DIRECTIONS if any((r["from"], r["to"]) == one for r in records)]
    rows = [summary(records, [one], " -> ".join(one)) for one in present]
    rows.append(summary(records, present, "all"))
    for figure in FIGURES:
        shown = []
        for row in rows:
            for model in ("single", "joint"):
                cells = {f"n={n}": "{mean:.3f} ±{std:.3f}".format(**row[f"{model} {figure} n={n}"]) for n in BUDGETS}
                shown.append({"what": row["what"], "columns": row["columns"], "model": model, **cells})
        show(figure, shown)
    times = {name: max(one[name] for one in records if one["model"] == "joint") for name in ("told_s", "adapt_s")}
    medians = {name: float(np.median([r[name] for r in records if r["model"] == "joint"])) for name in times}
    print("largest CPU seconds:", times, "median:", medians, "pre-training:", pretrain_s)
    figures = {"means": rows, "columns": by_column(records), "largest_s": times, "median_s": medians}
    save(arguments.out, figures | {"pretrain_s": pretrain_s, "seeds": arguments.seeds})


if __name__ == "__main__":
    main()
