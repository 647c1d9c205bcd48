"""Tests of the comparison of the same networks on two targets, with answers worked out by hand."""

from __future__ import annotations

import numpy as np

from latlab.harness.statistics.rank_changes import certain_reversals, median_ratio, ranks


def test_ranks() -> None:
    assert ranks([3.0, 1.0, 2.0, 1.0]).tolist() == [4, 1, 3, 2]


def test_the_median_ratio_holds_the_true_one() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        first = rng.uniform(1, 10, 25)
        found = median_ratio(first, first * 2 * np.exp(rng.standard_t(2, 25) * 0.1))
        held += found.low <= 2 <= found.high
        assert found.low <= found.ratio <= found.high
    assert held / 400 >= 0.94


def test_few_networks_have_the_widest_interval() -> None:
    found = median_ratio([1.0, 1.0], [2.0, 3.0])
    assert found == (2.5, 2.0, 3.0)


def test_only_what_error_bars_do_not_explain_is_a_reversal() -> None:
    first, second = [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]
    small, large = [0.01] * 3, [0.6] * 3
    assert certain_reversals(first, small, second, small).tolist() == [1, 1, 0]
    assert certain_reversals(first, large, second, small).tolist() == [0, 0, 0]
    assert certain_reversals(first, small, first, small).tolist() == [0, 0, 0]
    assert certain_reversals(first, [np.nan] * 3, second, small).tolist() == [1, 1, 0]
