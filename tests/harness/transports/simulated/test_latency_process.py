"""The physics of simulated devices gives the answers that are known."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from latlab.harness.transports.simulated.config import Bursts, Heating, Noise, Outliers, SlowClock
from latlab.harness.transports.simulated.latency_process import Heat, LatencyProcess, Telegraph

N = 40_000


def test_without_noise_each_run_takes_the_true_latency() -> None:
    process = LatencyProcess(Noise())
    assert process.samples(2.5, 100).tolist() == [2.5] * 100
    assert process.now_s == pytest.approx(0.25)


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_the_mean_is_the_truth_and_sigma_the_spread(sigma: float) -> None:
    samples = LatencyProcess(Noise(sigma=sigma), seed=1).samples(3.0, N)
    assert samples.mean() == pytest.approx(3.0, rel=5 * sigma / math.sqrt(N))
    assert np.log(samples).std() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_autocorrelation(phi: float) -> None:
    """Lags 1 and 3 of an AR(1) process, whose spread does not depend on it; also across calls."""
    process = LatencyProcess(Noise(sigma=0.1, autocorrelation=phi), seed=2)
    logs = np.log(np.concatenate([process.samples(1.0, 40) for _ in range(N // 40)]))
    for lag in (1, 3):
        assert np.corrcoef(logs[:-lag], logs[lag:])[0, 1] == pytest.approx(phi**lag, abs=0.03)
    assert logs.std() == pytest.approx(0.1, rel=0.05)


def test_outliers() -> None:
    samples = LatencyProcess(Noise(outliers=Outliers(probability=0.05, factor=4.0)), seed=3).samples(1.0, N)
    assert set(samples) == {1.0, 4.0}
    assert (samples == 4.0).mean() == pytest.approx(0.05, abs=0.005)


def test_drift() -> None:
    process = LatencyProcess(Noise(drift_percent_per_hour=10))
    process.samples(3600.0, 500)  # half an hour and more
    assert 0.5 < process.now_s / 3600 < 0.53
    assert process.samples(1.0, 1)[0] == pytest.approx(1 + 0.1 * process.now_s / 3600, rel=1e-3)
    assert process.samples(1.0, 1, start_s=7200.0)[0] == pytest.approx(1.2, rel=1e-3)


def test_drift_within_one_call() -> None:
    samples = LatencyProcess(Noise(drift_percent_per_hour=50)).samples(10.0, 100_000)
    ends_s = np.cumsum(samples) / 1e3
    starts_s = ends_s - samples / 1e3
    assert samples == pytest.approx(10.0 * (1 + 0.5 * starts_s / 3600), rel=2e-4)


def test_a_clock_of_two_speeds() -> None:
    """Both modes, in stretches of the length that was asked for."""
    noise = Noise(slow_clock=SlowClock(share=0.3, factor=1.5, dwell_s=2.0))
    samples = LatencyProcess(noise, seed=4).samples(10.0, 400_000)
    slow = samples == 15.0
    assert set(samples) == {10.0, 15.0}
    assert samples[slow].sum() / samples.sum() == pytest.approx(0.3, abs=0.03)
    stretches = np.diff(np.flatnonzero(np.diff(slow)))
    assert len(stretches) / 2 == pytest.approx(samples.sum() / 1e3 * 0.3 / 2.0, rel=0.1)


def test_bursts() -> None:
    noise = Noise(bursts=Bursts(per_minute=6, seconds=0.5, factor=2.0))
    samples = LatencyProcess(noise, seed=5).samples(5.0, 400_000)
    # On for 0.5 s, off for 10 s on average.
    assert samples[samples == 10.0].sum() / samples.sum() == pytest.approx(0.5 / 10.5, rel=0.15)


def test_a_telegraph_is_stationary_from_the_start() -> None:
    on = [Telegraph(1.0, 3.0, np.random.default_rng(seed)).on for seed in range(2000)]
    assert np.mean(on) == pytest.approx(0.25, abs=0.04)


HEATING = Heating(watts=5, ambient_c=30, c_per_watt=6, time_constant_s=20, throttle_c=100)


def test_it_warms_up_to_its_equilibrium() -> None:
    """After one time constant 63 % of the way are gone, after ten all of it; at rest it cools down as fast."""
    process = LatencyProcess(Noise(), HEATING)
    assert process.heat is not None
    process.samples(10.0, 2000)
    assert process.heat.temperature_c == pytest.approx(30 + 30 * (1 - math.exp(-1)))
    process.samples(10.0, 18_000)
    assert process.heat.temperature_c == pytest.approx(60, abs=0.01)
    process.rest(20)
    assert process.heat.temperature_c == pytest.approx(30 + 30 * math.exp(-1), abs=0.01)


def test_the_moment_of_throttling() -> None:
    """T(t) = ambient + rise (1 - exp(-t / tau)) reaches 50 degrees at tau ln 3: from then on runs take longer."""
    heating = HEATING.model_copy(update={"throttle_c": 50.0, "throttle_factor": 1.25, "hysteresis_c": 1.0})
    samples = LatencyProcess(Noise(), heating).samples(10.0, 5000)
    before = int(np.argmax(samples > 10.0))
    assert before == math.ceil(20 * math.log(3) / 0.01)
    assert samples[:before].tolist() == [10.0] * before
    assert set(samples) == {10.0, 12.5}
    # The throttled equilibrium, 30 + 30 / 1.25 = 54 degrees, is above 49: it stays throttled.
    assert set(samples[before:]) == {12.5}


def test_throttling_comes_and_goes_within_the_hysteresis() -> None:
    heating = HEATING.model_copy(update={"throttle_c": 55.0, "throttle_factor": 2.0, "hysteresis_c": 5.0})
    process = LatencyProcess(Noise(), heating)
    assert process.heat is not None
    temperatures = []
    for _ in range(3000):
        process.samples(20.0, 5)
        temperatures.append(process.heat.temperature_c)
    steady = np.array(temperatures[1000:])
    # Busy at half the clock it goes towards 45 degrees, below 50, where the clock rises again; a sample late at most.
    assert 49.5 < steady.min() < 50.2
    assert 54.8 < steady.max() < 55.5
    assert process.clock_factor in (1.0, 2.0)


def test_no_throttling_that_is_never_reached() -> None:
    heat = Heat(HEATING)
    assert heat.changes_in_s() == math.inf
    heat.advance(1000, busy=True)
    assert not heat.throttled


def test_the_seed_is_all_that_matters() -> None:
    noise = Noise(
        sigma=0.1,
        autocorrelation=0.3,
        slow_clock=SlowClock(share=0.2),
        outliers=Outliers(probability=0.1),
        bursts=Bursts(per_minute=30),
    )

    def run(seed: int, pause_s: float) -> list[float]:
        process = LatencyProcess(noise, HEATING, seed)
        values: list[float] = []
        for base in (1.0, 5.0, 0.1):
            values += process.samples(base, 200).tolist()
            time.sleep(pause_s)
            process.rest(0.01)
        return values

    assert run(7, 0) == run(7, 0.02)
    assert run(7, 0) != run(8, 0)


def test_a_limit_in_time() -> None:
    process = LatencyProcess(Noise(), seed=1)
    assert len(process.samples(10.0, 1_000_000, limit_s=0.095)) == 10
    assert process.now_s == pytest.approx(0.1)
    assert len(process.samples(10.0, 3, limit_s=100)) == 3
    assert len(process.samples(10.0, 0)) == 0
