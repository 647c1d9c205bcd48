"""Tests of the pooled variance: what the networks of a session teach about each other's noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latlab.harness.statistics.estimators import EFFECTS, NoiseModel, needs_pass, summarise
from latlab.harness.statistics.pooled_variance import estimate_noise
from latlab.harness.timing_policy import TimingPolicy

POLICY = TimingPolicy("x", warmup=2, runs=10, trim=0.1, passes=3, spread=2, max_passes=5, precision=0.01)


def network(
    rng: np.random.Generator, rho: float = 0.0, sigma: float = 0.02, effect: float = 0.0, passes: int = 4
) -> list[list[int]]:
    """Return passes of ten runs with AR(1) noise; `sigma` is the spread of samples, `effect` that of passes."""
    z = rng.standard_normal((passes, 10))
    for k in range(1, 10):
        z[:, k] = rho * z[:, k - 1] + math.sqrt(1 - rho**2) * z[:, k]
    level = effect * rng.standard_normal((passes, 1))
    return [[round(float(ns)) for ns in one] for one in 1e6 * np.exp(sigma * z + level)]


def learnt(networks: list[list[list[int]]], trim: float = 0.1) -> NoiseModel:
    found = estimate_noise(networks, trim)
    assert found is not None
    return found


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_variance_and_correlation_are_learnt(rho: float) -> None:
    rng = np.random.default_rng(1)
    found = learnt([network(rng, rho) for _ in range(100)])
    assert math.sqrt(found.variance) == pytest.approx(0.02, rel=0.15)
    assert found.correlation == pytest.approx(rho, abs=0.12)
    assert found.freedom > 40
    assert found.effects[0] > 0.7
    assert sum(found.effects) == pytest.approx(1)


def test_networks_that_are_unlike_teach_little() -> None:
    rng = np.random.default_rng(1)
    found = learnt([network(rng, sigma=sigma) for sigma in (0.003, 0.01, 0.03, 0.1) for _ in range(20)])
    assert found.freedom < 4


def test_differences_between_passes_are_learnt() -> None:
    rng = np.random.default_rng(1)
    found = learnt([network(rng, effect=0.02) for _ in range(100)])  # 3.2 standard errors of a pass
    assert found.effects[0] < 0.2
    usual = sum(weight * effect for weight, effect in zip(found.effects, EFFECTS, strict=True) if effect < 100)
    assert usual == pytest.approx(3.2, rel=0.5)


def test_one_long_sitting_each_teaches_as_well() -> None:
    rng = np.random.default_rng(1)
    found = learnt([[[ns for one in network(rng, passes=5) for ns in one]] for _ in range(50)])
    assert math.sqrt(found.variance) == pytest.approx(0.02, rel=0.15)


def test_few_networks_or_no_scatter_teach_nothing() -> None:
    rng = np.random.default_rng(1)
    assert estimate_noise([network(rng) for _ in range(9)], 0.1) is None
    assert estimate_noise([[[1_000_000] * 10] * 3] * 20, 0.1) is None
    assert estimate_noise([[[1_000_000], [1_100_000], [1_200_000]]] * 20, 0.1) is None
    assert estimate_noise([[[0] * 10] * 3] * 20, 0.1) is None
    assert estimate_noise([], 0.1) is None


def test_samples_that_are_alike_by_luck_are_not_precise() -> None:
    rng = np.random.default_rng(1)
    found = learnt([network(rng, sigma=0.05) for _ in range(50)])
    lucky = network(rng, sigma=0.005)
    assert not needs_pass(lucky, POLICY, 0.0)
    assert needs_pass(lucky, POLICY, 0.0, found)
    assert summarise(lucky, 0.1, found).stderr_ms > 4 * summarise(lucky, 0.1).stderr_ms


@pytest.mark.parametrize(("rho", "sigma", "effect"), [(0.0, 0.03, 0.0), (0.6, 0.01, 0.0), (0.3, 0.01, 0.01)])
def test_intervals_cover_where_passes_are_added_by_them(rho: float, sigma: float, effect: float) -> None:
    rng = np.random.default_rng(2)
    found = learnt([network(rng, rho, sigma, effect) for _ in range(60)])
    covered = []
    for _ in range(120):
        whole = network(rng, rho, sigma, effect, passes=5)
        count = next(count for count in range(1, 6) if not needs_pass(whole[:count], POLICY, 0.0, found))
        summary = summarise(whole[:count], 0.1, found)
        covered.append(summary.low_ms < 1.0 < summary.high_ms)
    assert 0.89 < np.mean(covered) < 0.99


def test_one_pass_and_one_sample_are_summarised_too() -> None:
    rng = np.random.default_rng(1)
    found = learnt([network(rng) for _ in range(20)])
    assert summarise([[1_000_000]], 0.1, found).stderr_ms == pytest.approx(0.02, rel=0.3)
    assert summarise(network(rng, passes=1), 0.1, found).stderr_ms == pytest.approx(0.02 / math.sqrt(10), rel=0.3)
