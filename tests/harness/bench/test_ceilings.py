"""Tests of the ceilings of rank correlation, and of tasks found by bisection."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from latlab.harness.bench.bisection import bisect, correlations, hard_splits
from latlab.harness.bench.ceilings import flexible_fit, noise_ceiling
from latlab.harness.bench.tables import LatencyTable, read_table
from latlab.harness.errors import BadInputError
from latlab.search_spaces import get
from latlab.search_spaces.nasbench201.space import NASBench201


def test_the_bisection_with_the_least_cut_is_found() -> None:
    """Against all bisections of small random graphs: a heuristic, but of few nodes it misses none by much."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        weight = rng.normal(size=(10, 10))
        weight = weight + weight.T

        def cut(left: set[int], weight: np.ndarray = weight) -> float:
            return float(sum(weight[i, j] for i in left for j in set(range(10)) - left))

        left, right = bisect(weight, rng)
        assert len(left) == len(right) == 5
        everything = sorted(cut(set(half)) for half in combinations(range(10), 5))
        assert cut(set(left.tolist())) <= everything[len(everything) // 20]


def test_two_families_of_devices_are_told_apart() -> None:
    space = get("nasbench201")
    rng = np.random.default_rng(0)
    genes = space.genes(space.sample(60, 0))
    a, b = rng.uniform(1, 2, 60), rng.uniform(1, 2, 60)
    latency = {f"{name}{i}": base + 0.01 * rng.random(60) for i in range(3) for name, base in (("a", a), ("b", b))}
    table = LatencyTable("two families", space, genes, latency)
    (hardest, *_) = hard_splits(table, 2, 2, 2)
    families = [{name[0] for name in side} for side in (hardest.split.sources, hardest.split.targets)]
    assert sorted(map(min, families)) == ["a", "b"]
    assert all(len(family) == 1 for family in families)
    assert hardest.across < 0.3
    assert correlations(table)[0, 2] > 0.9
    with pytest.raises(BadInputError, match="has 6 devices"):
        hard_splits(table, 2, 4, 4)


def test_a_flexible_fit_learns_what_it_was_never_told(table_file: Path) -> None:
    fit = flexible_fit(read_table(table_file, "fbnet"), "slow")
    assert fit.samples == 120
    assert fit.spearman > 0.7
    assert fit.mape_percent < 12


def test_noise_of_equal_cells_is_the_ceiling() -> None:
    space = get("nasbench201")
    assert isinstance(space, NASBench201)
    genes = space.genes(list(space.enumerate())[:4000])
    truth = np.exp(0.4 * (genes == 3).sum(axis=1) + 0.3 * (genes == 2).sum(axis=1) + 0.2 * (genes == 4).sum(axis=1))
    rng = np.random.default_rng(0)
    columns = {f"{sigma}": truth * np.exp(sigma * rng.standard_normal(4000)) for sigma in (0.01, 0.3)}
    table = LatencyTable("noisy", space, genes, columns)
    for name, column in columns.items():
        assert noise_ceiling(table, name) == pytest.approx(np.corrcoef(np.log(column), np.log(truth))[0, 1], abs=0.03)
