"""NASFLAT's Algorithm 1 on the published tables: does it give the device sets N1-N4 and F1-F4?

Akhauri and Abdelfattah, MLSys 2024, section 4.1, and their script device_set_dist.py: Kernighan-Lin bisection of the
graph whose edges are negative Spearman correlations (networkx), then devices are removed, each time the one with the
largest sum of correlations to the other side, until the sides have the wanted sizes. The authors publish one seed, 42,
and sizes that are not those of their tasks; so all seeds below SEEDS are tried, with either side as sources.

    python benchmarks/device_sets.py --data DATA
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import networkx
import numpy as np
from networkx.algorithms.community import kernighan_lin_bisection

from latlab.harness.bench.bisection import correlations, hard_splits
from latlab.harness.bench.tasks import published_task

RESULTS = Path(__file__).parent / "results" / "device_sets.json"
TASKS = ("N1", "N2", "N3", "N4", "F1", "F2", "F3", "F4")
SEEDS = 200


def algorithm_1(rho: np.ndarray, sources: int, targets: int, seed: int, swap: bool) -> tuple[set[int], set[int]]:
    """Return the positions of source and target devices; `swap` takes the second half as sources."""
    graph = networkx.from_numpy_array(-rho)
    halves = kernighan_lin_bisection(graph, max_iter=10, weight="weight", seed=seed)
    left, right = (set(half) for half in (reversed(halves) if swap else halves))
    while len(left) > sources or len(right) > targets:
        for own, other, size in ((left, right, sources), (right, left, targets)):
            if len(own) > size:
                own.remove(max(own, key=lambda node: rho[node, list(other)].sum()))
    return left, right


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LATLAB_DATA", "data")))
    data = parser.parse_args().data
    found = []
    for name in TASKS:
        task = published_task(name, data)
        table, split = task.table(), task.splits[0]
        devices, rho = list(table.latency_ms), correlations(table)
        published = set(split.sources), set(split.targets)

        def across(own: set[str], others: set[str], devices=devices, rho=rho) -> float:
            return float(rho[np.ix_([devices.index(d) for d in own], [devices.index(d) for d in others])].mean())

        results = []
        for seed in range(SEEDS):
            for swap in (False, True):
                left, right = algorithm_1(rho, len(split.sources), len(split.targets), seed, swap)
                own, others = {devices[i] for i in left}, {devices[i] for i in right}
                score = (jaccard(own, published[0]) + jaccard(others, published[1])) / 2
                results.append((score, seed, swap, own, others))
        best = max(results, key=lambda one: one[:2])
        harder = hard_splits(table, 1, len(split.sources), len(split.targets), 0)
        found.append(
            {
                "task": name,
                "devices": len(devices),
                "exact": best[0] == 1.0,
                "best_jaccard": best[0],
                "median_jaccard": float(np.median([one[0] for one in results])),
                "seed": best[1],
                "swap": best[2],
                "distinct_sets": len({(frozenset(one[3]), frozenset(one[4])) for one in results}),
                "sources_differ": sorted(best[3] ^ published[0]),
                "targets_differ": sorted(best[4] ^ published[1]),
                "across_published": across(*published),
                "across_algorithm": across(best[3], best[4]),
                "across_lowest": min(across(one[3], one[4]) for one in results),
                "across_bench_tasks": harder[0].across if harder else None,
            }
        )
        one = found[-1]
        print(
            f"{name}: overlap {one['best_jaccard']:.2f} (median {one['median_jaccard']:.2f}), {one['distinct_sets']} "
            f"sets; correlation across: published {one['across_published']:.2f}, algorithm "
            f"{one['across_algorithm']:.2f}, lowest {one['across_lowest']:.2f}, bench tasks "
            f"{one['across_bench_tasks']:.2f}",
            flush=True,
        )
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
