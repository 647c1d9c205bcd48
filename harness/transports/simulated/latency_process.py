"""The random process of run times on a device that heats up, drifts and is disturbed, on a clock of its own.

Nothing here waits or reads a clock: the same seed and the same calls give the same samples on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from latlab.harness.transports.simulated.config import Heating, Noise

__all__ = ["Heat", "LatencyProcess", "Telegraph"]

_CHUNK = 1024
"""Samples drawn at a time, so that a limit reached early costs little."""
_DRIFT_STEP = 1e-4
"""Drift advances in steps of this share of a latency."""


class Telegraph:
    """A stationary random telegraph signal: on and off in turns, each for an exponentially distributed time.

    Args:
        on_s: mean seconds that it stays on.
        off_s: mean seconds that it stays off.
        rng: the source of randomness.
    """

    def __init__(self, on_s: float, off_s: float, rng: np.random.Generator) -> None:
        self._mean_s = (off_s, on_s)
        self._rng = rng
        self.on = bool(rng.random() < on_s / (on_s + off_s))
        self.changes_at_s = rng.exponential(self._mean_s[self.on])

    def advance(self, now_s: float) -> None:
        """Advance the signal to `now_s`, in seconds on the device's clock."""
        while self.changes_at_s <= now_s:
            self.on = not self.on
            self.changes_at_s += self._rng.exponential(self._mean_s[self.on])


class Heat:
    """A thermal mass with a governor: dT/dt = (T_end - T) / tau, with T_end = ambient + watts x degrees per watt.

    At `throttle_c` the governor lowers the clock, and with it the power (watts / throttle_factor), until the mass has
    cooled down by `hysteresis_c`.
    """

    def __init__(self, heating: Heating) -> None:
        self._heating = heating
        self.temperature_c = heating.ambient_c
        self.throttled = False
        self.joules = 0.0
        """The energy turned into heat so far."""

    @property
    def factor(self) -> float:
        """The factor by which runs take longer now."""
        return self._heating.throttle_factor if self.throttled else 1.0

    @property
    def watts(self) -> float:
        """The power of a running network at the present clock."""
        return self._heating.watts / self.factor

    def equilibrium_c(self, *, busy: bool) -> float:
        """Return the temperature that is approached at the present clock, in degrees Celsius."""
        heating = self._heating
        return heating.ambient_c + (self.watts if busy else 0.0) * heating.c_per_watt

    def changes_in_s(self) -> float:
        """Return the seconds until the clock changes if a network runs all the time; infinity if it never does."""
        end_c = self.equilibrium_c(busy=True)
        at_c = self._heating.throttle_c - (self._heating.hysteresis_c if self.throttled else 0.0)
        gap, way = at_c - end_c, self.temperature_c - end_c
        if gap * way <= 0 or (gap < 0) == self.throttled:
            return math.inf  # the temperature is never reached
        return max(0.0, self._heating.time_constant_s * math.log(way / gap))

    def advance(self, seconds: float, *, busy: bool) -> None:
        """Let time pass at the present clock; the governor acts at the end of it."""
        end_c = self.equilibrium_c(busy=busy)
        self.joules += seconds * self.watts if busy else 0.0
        self.temperature_c = end_c + (self.temperature_c - end_c) * math.exp(-seconds / self._heating.time_constant_s)
        if self.temperature_c >= self._heating.throttle_c - 1e-9:
            self.throttled = True
        elif self.temperature_c <= self._heating.throttle_c - self._heating.hysteresis_c + 1e-9:
            self.throttled = False


class LatencyProcess:
    """Successive runs on one device: sample = base x noise x outlier x drift x clock x neighbour x throttling.

    The noise is log-normal with mean 1, and its logarithm is an AR(1) process from run to run; the other factors are 1
    while nothing happens. Clock, neighbour and temperature follow the device's clock, `now_s`, which advances with
    the samples and with `rest`.

    Args:
        noise: the noise, drift, slow clock, outliers and bursts.
        heating: the thermal model; None: the device never gets warmer.
        seed: a seed as `numpy.random.SeedSequence` takes it.
    """

    def __init__(self, noise: Noise, heating: Heating | None = None, seed: int | Sequence[int] = 0) -> None:
        self._noise = noise
        self.now_s = 0.0
        self.heat = Heat(heating) if heating else None
        self._rng, clock, neighbour = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(3))
        self._z = float(self._rng.standard_normal())
        slow, bursts = noise.slow_clock, noise.bursts
        self.slow_clock = Telegraph(slow.dwell_s, slow.dwell_s * (1 / slow.share - 1), clock) if slow else None
        self.neighbour = Telegraph(bursts.seconds, 60 / bursts.per_minute, neighbour) if bursts else None

    def samples(
        self, base_ms: float, n: int, start_s: float | None = None, limit_s: float = math.inf
    ) -> NDArray[np.float64]:
        """Return the durations of successive runs of a network, in milliseconds.

        Args:
            base_ms: the network's true latency.
            n: the number of runs.
            start_s: when to start, on the device's clock; it rests until then. Default: at once.
            limit_s: seconds after which no run begins.

        Returns:
            An array of shape (n,), or shorter where `limit_s` ended the runs.
        """
        if start_s is not None:
            self.rest(start_s - self.now_s)
        stop_s = self.now_s + limit_s
        parts = []
        while n > 0 and self.now_s <= stop_s:
            quiet_ms = base_ms * self._multipliers(min(n, _CHUNK))
            n -= len(quiet_ms)
            while len(quiet_ms) and self.now_s <= stop_s:
                # Until the next change of any state, all runs are slowed down by the same factor.
                durations_ms = quiet_ms * self.slowdown
                ends_s = self.now_s + np.cumsum(durations_ms) / 1e3
                count = 1 + int(np.searchsorted(ends_s[:-1], min(self._changes_at_s(), stop_s), side="right"))
                parts.append(durations_ms[:count])
                self._advance(float(ends_s[count - 1]), busy=True)
                quiet_ms = quiet_ms[count:]
        return np.concatenate(parts) if parts else np.empty(0)

    def rest(self, seconds: float) -> None:
        """Let `seconds` pass without a run: the device cools down, the neighbour goes on."""
        if seconds > 0:
            self._advance(self.now_s + seconds, busy=False)

    @property
    def slowdown(self) -> float:
        """The factor by which everything but noise and outliers lengthens a run that begins now."""
        noise = self._noise
        factor = 1 + noise.drift_percent_per_hour / 100 * self.now_s / 3600
        if noise.bursts and self.neighbour and self.neighbour.on:
            factor *= noise.bursts.factor
        return max(factor, 1e-3) * self.clock_factor

    @property
    def clock_factor(self) -> float:
        """The factor by which the clock is below its highest."""
        factor = self.heat.factor if self.heat else 1.0
        if self._noise.slow_clock and self.slow_clock and self.slow_clock.on:
            factor *= self._noise.slow_clock.factor
        return factor

    def _multipliers(self, n: int) -> NDArray[np.float64]:
        noise = self._noise
        multipliers = np.ones(n)
        if noise.sigma:
            z = self._rng.standard_normal(n)
            phi = noise.autocorrelation
            if phi:
                z *= math.sqrt(1 - phi**2)
                z = np.array([*accumulate(z.tolist(), lambda last, new: phi * last + new, initial=self._z)][1:])
                self._z = float(z[-1])
            multipliers = np.exp(noise.sigma * z - noise.sigma**2 / 2)
        if noise.outliers:
            multipliers[self._rng.random(n) < noise.outliers.probability] *= noise.outliers.factor
        return multipliers

    def _changes_at_s(self) -> float:
        at_s = math.inf
        if self.slow_clock:
            at_s = min(at_s, self.slow_clock.changes_at_s)
        if self.neighbour:
            at_s = min(at_s, self.neighbour.changes_at_s)
        if self.heat:
            at_s = min(at_s, self.now_s + self.heat.changes_in_s())
        if self._noise.drift_percent_per_hour:
            at_s = min(at_s, self.now_s + _DRIFT_STEP * 3.6e5 / abs(self._noise.drift_percent_per_hour))
        return at_s

    def _advance(self, to_s: float, *, busy: bool) -> None:
        if self.heat:
            self.heat.advance(to_s - self.now_s, busy=busy)
        self.now_s = to_s
        if self.slow_clock:
            self.slow_clock.advance(to_s)
        if self.neighbour:
            self.neighbour.advance(to_s)
