"""Tests of the reliability of labels, on made-up labels of known noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from latlab.harness.statistics.reliability import (
    between_sessions,
    ceiling,
    correlation,
    retest,
    self_correlation,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("spread", "noise"), [(0.7, 0.03), (0.7, 0.1), (0.3, 0.1), (0.1, 0.1)])
def test_the_ceiling_is_what_noisy_labels_reach(spread: float, noise: float) -> None:
    reached, foretold = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, spread, 300)
        sigma = noise * np.exp(rng.normal(0, 0.5, 300))
        one, two = (np.exp(truth + sigma * rng.standard_normal(300)) for _ in range(2))
        found = ceiling(one, sigma)
        reached.append([stats.spearmanr(truth, one).statistic, stats.spearmanr(one, two).statistic])
        foretold.append([found.spearman, found.retest])
        assert found.low < found.retest < found.high
        assert found.pearson == pytest.approx(math.sqrt(found.reliability))
    np.testing.assert_allclose(np.mean(foretold, 0), np.mean(reached, 0), atol=0.3 * (1 - np.mean(reached)))


def test_noise_between_sessions_lowers_it() -> None:
    latency = np.exp(RNG.normal(0, 0.5, 200))
    assert ceiling(latency, 0.03, between=0.1).spearman == pytest.approx(
        ceiling(latency, math.hypot(0.03, 0.1)).spearman
    )
    assert ceiling(latency, 0.0).spearman == ceiling(latency, 0.0).retest == 1


def test_labels_that_are_only_noise_have_no_reliability() -> None:
    found = ceiling(np.exp(RNG.normal(0, 0.05, 300)), 0.1)
    assert found.reliability == found.pearson == 0
    assert abs(found.retest) < 0.05
    assert found.low < -0.05


@pytest.mark.filterwarnings("error")
def test_too_few_networks() -> None:
    assert math.isnan(ceiling([1, 2], 0.1).spearman)
    assert math.isnan(ceiling([1, 2, 3, math.nan], [0.1, 0.1, math.nan, 0.1]).spearman)
    assert math.isnan(retest([1, 2, math.nan], [1, 2, 3]).spearman)
    assert math.isnan(retest([1, 1, 1], [1, 2, 3]).low)
    assert math.isnan(self_correlation([[1.0, 2.0], [2.0, 3.0]]))
    assert math.isnan(correlation([1, 2], [1, 2]).rho)
    assert math.isnan(correlation([1, 2, 3], [1, 1, 1]).p)
    assert between_sessions([[1.0, math.nan]], 0.1).networks == 0
    alone = between_sessions([[1.0, 2.0]], 0.1)
    assert (alone.networks, math.isnan(alone.specific)) == (1, True)
    assert np.diff(alone.shifts)[0] == pytest.approx(math.log(2))


def test_retest_of_two_sessions() -> None:
    truth = np.exp(RNG.normal(0, 0.5, 200))
    one, two = (truth * np.exp(RNG.normal(0, 0.05, 200)) for _ in range(2))
    found = retest(np.append(one, math.nan), np.append(two, 1.0))
    assert found.networks == 200
    assert found.spearman == stats.spearmanr(one, two).statistic
    assert found.kendall == stats.kendalltau(one, two).statistic
    assert found.low < found.spearman < found.high
    assert found.scatter == pytest.approx(math.sqrt(2) * 0.05, rel=0.2)
    assert retest(one, two) == retest(one, two)
    assert self_correlation(np.column_stack([one, two])) == found.spearman


@pytest.mark.parametrize("sessions", [2, 3, 6])
@pytest.mark.parametrize(("common", "specific"), [(0.0, 0.0), (0.05, 0.02), (0.05, 0.0), (0.0, 0.02)])
def test_variances_between_sessions(sessions: int, common: float, specific: float) -> None:
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y = rng.normal(0, 0.7, (40, 1)) + rng.normal(0, common, sessions)
        y = y + rng.normal(0, math.hypot(specific, 0.01), (40, sessions))
        y[rng.random(y.shape) < 0.1] = np.nan
        found.append(between_sessions(np.exp(y), np.full(y.shape, 0.01)))
    assert np.mean([one.specific**2 for one in found]) == pytest.approx(specific**2, rel=0.15, abs=2e-5)
    assert np.mean([one.common**2 for one in found]) == pytest.approx(common**2, rel=0.5, abs=2e-5)
    assert np.mean([one.ratio for one in found]) == pytest.approx(math.hypot(specific, 0.01) / 0.01, rel=0.1)


def test_shifts_of_sessions_are_found_though_they_share_few_networks() -> None:
    y = np.full((30, 3), np.nan)
    levels = RNG.normal(0, 1, 30)
    for session, (rows, shift) in enumerate([(range(15), 0.0), (range(10, 25), 0.1), (range(20, 30), -0.2)]):
        y[rows, session] = levels[rows] + shift
    shifts = between_sessions(np.exp(y), 0.01).shifts
    np.testing.assert_allclose(shifts - shifts[0], [0, 0.1, -0.2], atol=1e-9)


def test_two_sessions_give_half_the_variance_of_differences() -> None:
    y = RNG.normal(0, 1, (50, 1)) + RNG.normal(0, 0.03, (50, 2))
    found = between_sessions(np.exp(y), 0.01)
    assert found.specific**2 + 0.01**2 == pytest.approx(np.var(y[:, 1] - y[:, 0], ddof=1) / 2, rel=1e-4)


def test_residuals_that_go_with_time() -> None:
    times = np.arange(51.0)
    residuals = np.where(times < 50, 0.001 * times - 0.0245, np.nan)  # the last network has no residual
    found = correlation(residuals, times)
    assert found.rho > 0.95
    assert found.p < 1e-9
    assert found.n == 50
    assert correlation(residuals, RNG.random(51)).p > 1e-3
