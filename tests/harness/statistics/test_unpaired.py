"""Tests of ratios between labels of different sessions, on simulated sessions with shifts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from latlab.harness.statistics.unpaired import USUAL_BETWEEN, fastest_runs, session_shift, unpaired_interval

NETWORKS = np.log([1.0, 2.0, 5.0, 0.3])


def test_the_anchors_tell_the_shift_and_the_scatter() -> None:
    table = np.stack([NETWORKS, NETWORKS + 0.05], axis=1)
    found = session_shift(table, 0, 1)
    assert found.log_shift == pytest.approx(0.05)
    assert found.between == pytest.approx(0, abs=1e-12)
    assert (found.freedom, found.anchors) == (3, 4)


def test_further_sessions_sharpen_the_scatter() -> None:
    rng = np.random.default_rng(0)
    table = NETWORKS[:, None] + rng.normal(0, 0.03, 12) + rng.normal(0, 0.01, (4, 12))
    found = session_shift(table, 3, 5)
    assert found.freedom == 33
    assert found.between == pytest.approx(0.01, rel=0.4)
    assert found.log_shift == pytest.approx(float(np.mean(table[:, 5] - table[:, 3])))


def test_missing_readings_leave_sessions_or_anchors_out() -> None:
    table = np.stack([NETWORKS, NETWORKS + 0.02, NETWORKS], axis=1)
    table[0, 2] = np.nan
    assert session_shift(table, 0, 1).freedom == 3
    table[0, 1] = np.nan
    found = session_shift(table, 0, 1)
    assert (found.anchors, found.freedom) == (3, 4)


@pytest.mark.parametrize("table", [[], [[1.0, 2.0]], [[1.0, math.nan], [1.0, 1.0]]])
def test_without_anchors_a_usual_scatter_is_taken(table: list[list[float]]) -> None:
    found = session_shift(table, 0, 1)
    assert found.log_shift == 0
    assert found.between == USUAL_BETWEEN
    centre, low, high = unpaired_interval(0.0, 0.0, 0.0, found, 0.95)
    assert centre == 0
    assert high == pytest.approx(stats.norm.ppf(0.95) * math.sqrt(2) * USUAL_BETWEEN)
    assert low == -high


def test_bounds_fail_as_often_as_they_may() -> None:
    """A network that has not changed, on a device that is 5 % slower than on the other day."""
    rng = np.random.default_rng(1)
    above = 0
    for _ in range(2000):
        scatter = rng.normal(0, 0.01, (5, 2))
        shift = np.array([0.0, 0.05])
        anchors = NETWORKS[:, None] + shift + scatter[:4]
        noise = rng.normal(0, 0.003, 2)
        log_ratio = float(shift[1] + scatter[4, 1] - scatter[4, 0] + noise[1] - noise[0])
        _, low, _ = unpaired_interval(log_ratio, 0.003, 0.003, session_shift(anchors, 0, 1), 0.95)
        above += low > 0
    assert above / 2000 == pytest.approx(0.05, abs=0.015)


def test_disturbed_passes_do_not_matter() -> None:
    log_ns, error = fastest_runs([[1010, 5000], [1000, 1100], [9000], [7000, 8000]])
    assert log_ns == pytest.approx(math.log(1000))
    assert error == pytest.approx(0.75 * math.log(1.01))
    assert fastest_runs([[500, 400]]) == (math.log(400), 0.0)


def test_the_error_of_the_shortest_run_is_as_large_as_its_bias() -> None:
    rng = np.random.default_rng(2)
    found = [fastest_runs([[round(1e9 * math.exp(0.1 * x))] for x in rng.exponential(size=5)]) for _ in range(2000)]
    bias = np.mean([log_ns - math.log(1e9) for log_ns, _ in found])
    assert np.mean([error for _, error in found]) == pytest.approx(bias, rel=0.1)
