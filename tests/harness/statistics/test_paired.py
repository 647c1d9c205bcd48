"""Tests of paired comparisons on synthetic noise: heavy tails, autocorrelation, bursts, and loads that differ."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from latlab.harness.statistics.group_sequential import Boundary
from latlab.harness.statistics.paired import (
    MIN_BLOCKS,
    WINDOW,
    Interval,
    Outcome,
    Round,
    block_log_ratio,
    interval_of,
    is_precise,
    outcome_of,
)

BLOCKS, ROUNDS, RUNS = 24, 8, 5
LEVELS = [0.0] * (MIN_BLOCKS - 1)
_BOUNDARY = Boundary(0.05)
LEVELS += [_BOUNDARY.look(count, count / BLOCKS) for count in range(MIN_BLOCKS, BLOCKS + 1)]


def series(rng: np.random.Generator, log_ratio: float) -> Iterator[list[Round]]:
    """Blocks of passes of two networks on a busy machine.

    Each load of a network has a speed of its own (.5 %). A burst slows both networks by half for some rounds, the
    machine's speed is an AR(1) process, and single runs take up to several times as long.
    """
    speed = 0.0
    burst = False
    while True:
        loads = rng.normal(0, 0.005, 2) + np.array([0, log_ratio])
        rounds: list[Round] = []
        for _ in range(ROUNDS):
            burst = rng.random() < (0.8 if burst else 0.1)
            speed = 0.9 * speed + rng.normal(0, 0.02)
            passes = {}
            for place in (0, 1):
                runs = np.exp(
                    loads[place] + speed + 0.4 * burst + np.minimum(np.abs(rng.standard_t(2, RUNS)) * 0.02, 3)
                )
                passes[place] = np.round(1e6 * runs).astype(int).tolist()
            rounds.append(passes)
        yield rounds


def decide(rng: np.random.Generator, log_ratio: float, zone: float) -> tuple[Outcome, Interval]:
    """Compare with early stopping, as a run does."""
    values: list[float] = []
    for rounds, level in zip(series(rng, log_ratio), LEVELS, strict=False):
        value = block_log_ratio(rounds, 0, 1)
        assert value is not None
        values.append(value)
        interval = interval_of(values, level)
        if is_precise(interval, zone):
            break
    return outcome_of(interval, zone), interval


def test_a_network_and_itself_are_rarely_told_apart() -> None:
    """Without an indifference zone, which would hide errors; at most 5 % of runs, whatever stops them."""
    rng = np.random.default_rng(0)
    found = [decide(rng, 0.0, 0.0)[0] for _ in range(300)]
    assert sum(one in (Outcome.FASTER, Outcome.SLOWER) for one in found) <= 22  # 15 expected, 2 sigma


def test_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    intervals = [decide(rng, 0.03, 0.01)[1] for _ in range(200)]
    assert sum(one.low <= 0.03 <= one.high for one in intervals) >= 186


def test_three_percent_are_found_and_nothing_is_a_tie() -> None:
    rng = np.random.default_rng(2)
    assert sum(decide(rng, math.log(1.03), math.log(1.01))[0] == Outcome.FASTER for _ in range(50)) >= 48
    assert sum(decide(rng, -math.log(1.03), math.log(1.01))[0] == Outcome.SLOWER for _ in range(50)) >= 48
    assert sum(decide(rng, 0.0, math.log(1.01))[0] == Outcome.TIE for _ in range(50)) >= 40


def test_one_load_would_call_a_network_faster_than_itself() -> None:
    """The trap that fresh loads avoid: within one load, Student's t over rounds finds a difference that is none."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(100):
        source = series(rng, 0.0)
        (block,) = (next(source) for _ in range(1))
        rounds = [block_log_ratio([one], 0, 1) for one in block]
        wrong += stats.ttest_1samp(rounds, 0.0).pvalue < 0.05
    assert wrong > 10


def test_a_window_is_the_ratio_of_shortest_runs() -> None:
    rounds = [{0: [100, 120], 1: [170, 200]}, {0: [500, 505], 1: [550, 110]}, {0: [101, 102], 1: [900, 950]}]
    assert block_log_ratio(rounds, 0, 1) == pytest.approx(math.log(1.1))
    assert block_log_ratio(rounds, 1, 0) == pytest.approx(-math.log(1.1))


def test_a_block_is_the_median_of_its_windows() -> None:
    """Here the machine is three times as fast in the first window, and only one network has a burst in the second."""
    windows = [(100, 110), (300, 900), (300, 330)]
    rounds = [{0: [a], 1: [b]} for a, b in windows for _ in range(WINDOW)]
    assert block_log_ratio(rounds, 0, 1) == pytest.approx(math.log(1.1))
    assert block_log_ratio([*rounds, rounds[-1]], 0, 1) == pytest.approx(math.log(1.1))


def test_passes_of_unequal_length_are_cut() -> None:
    assert block_log_ratio([{0: [100, 90, 50], 1: [90]}], 0, 1) == pytest.approx(math.log(0.9))


def test_rounds_without_both_networks_do_not_count() -> None:
    assert block_log_ratio([{0: [100]}, {1: [100], 0: []}], 0, 1) is None
    assert block_log_ratio([], 0, 1) is None
    assert block_log_ratio([{0: [50]}, {0: [100], 1: [200]}], 0, 1) == pytest.approx(math.log(2))


def test_an_interval_is_students_t_of_few_blocks() -> None:
    values = [0.01, 0.012, 0.008, 0.011, 0.009]
    found = interval_of(values, 0.05)
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.ratio == pytest.approx(math.exp(0.01))
    assert found.half_width == pytest.approx((found.high - found.low) / 2)


def test_few_blocks_say_nothing() -> None:
    found = interval_of([0.5] * (MIN_BLOCKS - 1), 0.05)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert outcome_of(found, 1.0) is Outcome.UNDECIDED
    assert not is_precise(found, 1.0)


def test_equal_values_do_not_prove_without_end() -> None:
    found = interval_of([0.0] * 10, 1e-9)
    assert found.low < 0 < found.high


@pytest.mark.parametrize(
    ("low", "high", "zone", "outcome"),
    [
        (0.02, 0.04, 0.01, Outcome.FASTER),
        (-0.04, -0.02, 0.01, Outcome.SLOWER),
        (-0.005, 0.008, 0.01, Outcome.TIE),
        (0.002, 0.008, 0.01, Outcome.TIE),
        (0.002, 0.02, 0.01, Outcome.FASTER),
        (-0.02, 0.02, 0.01, Outcome.UNDECIDED),
        (0.0, 0.0, 0.0, Outcome.TIE),
    ],
)
def test_outcomes(low: float, high: float, zone: float, outcome: Outcome) -> None:
    assert outcome_of(Interval((low + high) / 2, low, high, 9), zone) is outcome


def test_what_is_decided_is_also_measured_well() -> None:
    assert is_precise(Interval(0.03, 0.021, 0.039, 9), 0.01)
    assert not is_precise(Interval(0.03, 0.001, 0.059, 9), 0.01)
    assert is_precise(Interval(3.0, 2.8, 3.2, 9), 0.01)
