"""Tests of group-sequential boundaries against published values, and against simulated looks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from latlab.harness.statistics.group_sequential import Boundary, spent


def critical_values(alpha: float, shares: list[float], blocks: list[int]) -> list[float]:
    boundary = Boundary(alpha)
    return [float(-norm.ppf(boundary.look(count, share) / 2)) for share, count in zip(shares, blocks, strict=True)]


def test_published_boundaries() -> None:
    """Lan and DeMets' boundary of O'Brien and Fleming's kind for five looks, as in R's ldbounds and gsDesign."""
    found = critical_values(0.05, [0.2, 0.4, 0.6, 0.8, 1.0], [1, 2, 3, 4, 5])
    assert found == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3)


def test_one_look_is_a_plain_test() -> None:
    assert critical_values(0.05, [1.0], [7]) == pytest.approx([1.960], abs=1e-3)
    assert critical_values(0.01, [1.0], [1]) == pytest.approx([2.576], abs=1e-3)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_all_is_spent_at_the_end_and_little_early(alpha: float) -> None:
    assert spent(alpha, 0.0) == 0
    assert spent(alpha, 1.0) == pytest.approx(alpha)
    assert spent(alpha, 1.7) == pytest.approx(alpha)
    assert spent(alpha, 0.25) < alpha**2


def test_looks_with_uneven_steps_err_as_often_as_allowed() -> None:
    blocks = [3, 4, 6, 7, 11, 12, 20, 30]
    shares = [0.05, 0.2, 0.25, 0.3, 0.5, 0.55, 0.8, 1.0]
    limits = np.array(critical_values(0.05, shares, blocks))
    sums = np.cumsum(np.random.default_rng(1).standard_normal((40_000, 30)), axis=1)[:, np.array(blocks) - 1]
    crossed = (np.abs(sums) > limits * np.sqrt(blocks)).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_an_error_probability_is_between_0_and_1(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Boundary(alpha)


def test_a_look_needs_further_blocks() -> None:
    boundary = Boundary(0.05)
    boundary.look(4, 0.1)
    with pytest.raises(ValueError, match="further blocks"):
        boundary.look(4, 0.2)
