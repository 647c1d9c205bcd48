"""Tests of the drift correction, on made-up passes of known drift."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from latlab.harness.statistics.drift import Drift, Observation, failed_anchors, fit_drift

Floats = NDArray[np.float64]
NETWORKS, PASSES, SPREAD, NOISE = 120, 5, 20, 0.01
ANCHOR = "anchor"


def flat(u: Floats) -> Floats:
    return 0 * u


def line(u: Floats) -> Floats:
    return np.log(1 + 0.2 * u)


def step(u: Floats) -> Floats:
    return np.log(1 + 0.2 * (u > 0.37))


def heating(u: Floats) -> Floats:
    return np.log(1 + 0.2 * (1 - np.exp(-u / 0.1)))


def bursts(u: Floats) -> Floats:
    return np.log(1 + 0.3 * ((u * 7) % 1 < 0.15))


class Session:
    """A session of rolling passes, as the scheduler plans them, with anchors; networks may be ordered by size."""

    def __init__(self, drift: Callable[[Floats], Floats], seed: int = 0, *, noise: float = NOISE, sort: bool = False):
        rng = np.random.default_rng(seed)
        self.levels = rng.normal(0, 0.7, NETWORKS + 1)
        if sort:
            self.levels.sort()
        due = np.arange(NETWORKS)[:, None] + SPREAD * np.arange(PASSES) + rng.random((NETWORKS, PASSES))
        order = np.argsort(due.ravel())
        self.networks = np.insert(order // PASSES, np.arange(0, len(order) + 1, 20), NETWORKS)
        self.times_s = np.sort(rng.random(len(self.networks)) * 300) + 1e5
        self.drift = drift((self.times_s - 1e5) / 300)
        self.log_ms = self.levels[self.networks] + self.drift + rng.normal(0, noise, len(self.networks))
        self.points = [
            Observation(float(at), ANCHOR if network == NETWORKS else int(network), float(log_ms), noise)
            for at, network, log_ms in zip(self.times_s, self.networks, self.log_ms, strict=True)
        ]

    def error(self, correction: Floats) -> float:
        """Return the error of the networks' mean log-latencies, without their common shift."""
        sums = np.bincount(self.networks, self.log_ms - correction)
        return float(np.std(sums / np.bincount(self.networks) - self.levels))


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize(("drift", "allowed"), [(line, 1.03), (heating, 1.05), (step, 1.35), (bursts, 2.2)])
def test_labels_are_as_good_as_without_drift(drift: Callable[[Floats], Floats], allowed: float, sort: bool) -> None:
    sessions = [Session(drift, seed, sort=sort) for seed in range(4)]
    fits = [fit_drift(one.points) for one in sessions]
    assert all(fit.significant for fit in fits)
    known = np.mean([one.error(one.drift) for one in sessions])
    corrected = np.mean([one.error(fit.log_factor(one.times_s)) for one, fit in zip(sessions, fits, strict=True)])
    raw = np.mean([one.error(flat(one.times_s)) for one in sessions])
    assert corrected < allowed * known
    assert raw > 2 * corrected


def test_without_drift_nothing_is_corrected() -> None:
    fits = [fit_drift(Session(flat, seed).points) for seed in range(12)]
    assert sum(fit.significant for fit in fits) <= 1
    quiet = next(fit for fit in fits if not fit.significant)
    assert quiet.log_factor(1e5) == quiet.stderr(1e5) == quiet.percent == 0
    assert np.median([fit.noise for fit in fits]) == pytest.approx(NOISE, rel=0.05)


def test_it_says_how_far_off_it_may_be() -> None:
    misses = []
    for seed in range(6):
        one = Session(line, seed)
        fit = fit_drift(one.points)
        truth = one.drift - one.drift.mean()
        misses.append((fit.log_factor(one.times_s) - truth) / fit.stderr(one.times_s))
    assert 0.5 < np.sqrt(np.mean(np.square(misses))) < 1.5
    assert fit.percent == pytest.approx(20, abs=1.5)


def test_the_session_s_level_stays() -> None:
    one = Session(heating)
    assert fit_drift(one.points).log_factor(one.times_s).mean() == pytest.approx(0, abs=1e-9)


def test_passes_that_a_burst_hit_do_not_lead_it_astray() -> None:
    one = Session(line)
    hit = np.random.default_rng(5).random(len(one.points)) < 0.05
    points = [point._replace(log_ms=point.log_ms + 0.4 * bad) for point, bad in zip(one.points, hit, strict=True)]
    off = fit_drift(points).log_factor(one.times_s) - one.drift
    assert np.std(off) < 0.004


def test_the_order_of_points_is_of_no_matter() -> None:
    one = Session(line)
    shuffled = [one.points[number] for number in np.random.default_rng(0).permutation(len(one.points))]
    at = one.times_s
    np.testing.assert_allclose(fit_drift(one.points).log_factor(at), fit_drift(shuffled).log_factor(at), atol=1e-6)


def test_anchors_alone_suffice() -> None:
    times_s = np.linspace(0, 3600, 60)
    rng = np.random.default_rng(0)
    points = [Observation(t, ANCHOR, 0.1 * t / 3600 + rng.normal(0, 0.003), 0.003) for t in times_s.tolist()]
    points += [Observation(t + 1, f"network {t}", 5.0, 0.003) for t in times_s.tolist()]
    assert fit_drift(points).percent == pytest.approx(10.5, abs=1)


@pytest.mark.parametrize("hit", range(6))
def test_one_disturbed_anchor_of_a_few_is_no_drift(hit: int) -> None:
    levels = [0.002 * (-1) ** at for at in range(6)]
    points = [Observation(60 * at, ANCHOR, level + 0.26 * (at == hit), 0.004) for at, level in enumerate(levels)]
    assert not fit_drift(points).significant


def test_few_anchors_tell_a_trend() -> None:
    levels = [0.05 * at + 0.002 * (-1) ** at for at in range(6)]
    points = [Observation(60 * at, ANCHOR, level, 0.004) for at, level in enumerate(levels)]
    assert fit_drift(points).percent == pytest.approx(28, abs=2)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [Observation(0, "a", 0.0, 0.01)],
        [Observation(0, "a", 0.0, 0.01), Observation(1, "a", 0.3, 0.01)],
        [Observation(0, "a", 0.0, 0.0)] * 10,
        [Observation(7, n % 3, float(n), 0.01) for n in range(30)],
        [Observation(n, n, float(n), 0.01) for n in range(30)],
        [Observation(n, n % 3, float(n % 3), 0.0) for n in range(30)],
        [Observation(n, n % 3, math.nan, 0.01) for n in range(30)],
        [Observation(n, n % 3, float(n % 3), math.nan) for n in range(30)],
    ],
)
@pytest.mark.filterwarnings("error")
def test_nothing_to_tell(points: list[Observation]) -> None:
    fit = fit_drift(points)
    assert not fit.significant
    assert fit.log_factor([0.0, 1e9]).tolist() == [0, 0]


@pytest.mark.filterwarnings("error")
def test_a_pause_of_hours_and_no_noise_at_all() -> None:
    points = [Observation(n + 7200 * (n > 50), n % 10, n % 10 + 0.2 * (n > 50), 0.0) for n in range(100)]
    fit = fit_drift(points)
    assert fit.log_factor(7300.0) - fit.log_factor(0.0) == pytest.approx(0.2, abs=0.002)
    assert fit.log_factor(1e9) == fit.log_factor(points[-1].time_s)


def test_it_is_written_and_read() -> None:
    fit = fit_drift(Session(step).points)
    again = Drift.from_json(json.loads(json.dumps(fit.to_json())))
    at = np.linspace(1e5, 1e5 + 300, 50)
    np.testing.assert_allclose(again.log_factor(at), fit.log_factor(at), atol=1e-5)
    assert again.percent == pytest.approx(fit.percent, abs=1e-3)
    nothing = Drift.from_json(json.loads(json.dumps(fit_drift([]).to_json())))
    assert not nothing.significant


def test_thousands_of_passes_are_quick() -> None:
    points = [Observation(n, n % 1000, n % 1000 + 4e-5 * n, 0.01) for n in range(5000)]
    start = time.process_time()
    assert fit_drift(points).significant
    assert time.process_time() - start < 3  # a third of a second when nobody disturbs


# Anchors that failed


def failures(log_ms: Floats | list[float]) -> list[int]:
    points = [Observation(at, ANCHOR, float(one), 0.005) for at, one in enumerate(log_ms)]
    return np.flatnonzero(failed_anchors(points)).tolist()


STEADY = np.random.default_rng(0).normal(0, 0.01, 40)


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, []),
        ({5: 0.2, 20: -0.2}, [5, 20]),
        ({20: 0.2, 21: 0.2}, [20, 21]),
        ({0: 0.2, 39: 0.2}, [0, 39]),
        ({5: 0.03}, []),
        (dict.fromkeys(range(25, 40), 0.2), []),
        (dict.fromkeys(range(38, 40), 0.2), []),
        ({number: 0.01 * number for number in range(40)}, []),
    ],
)
def test_a_departure_fails_and_a_new_level_does_not(change: dict[int, float], failing: list[int]) -> None:
    log_ms = STEADY.copy()
    log_ms[list(change)] += list(change.values())
    assert failures(log_ms) == failing


def test_anchors_that_scatter_are_allowed_more() -> None:
    assert failures(10 * STEADY) == []
    assert failures([*(10 * STEADY), 2.0, *(10 * STEADY)]) == [40]


@pytest.mark.parametrize(
    ("log_ms", "failing"),
    [([], []), ([0], []), ([0, 1], []), ([0, 1, 0], [1]), ([0, 0, 1], [2]), ([0, 0, math.nan, 0], [2])],
)
def test_few_anchors(log_ms: list[float], failing: list[int]) -> None:
    assert failures(log_ms) == failing


def test_each_anchor_is_compared_with_itself_in_order_of_time() -> None:
    points = [Observation(at, network, level, 0.001) for at in range(6) for network, level in (("a", 0.0), ("b", 2.0))]
    points[7] = points[7]._replace(log_ms=2.3)
    assert np.flatnonzero(failed_anchors(points)).tolist() == [7]
    assert np.flatnonzero(failed_anchors(points[::-1])).tolist() == [4]
