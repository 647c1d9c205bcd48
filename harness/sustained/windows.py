"""A run of minutes, window by window: pure functions of what its passes recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.statistics.estimators import trimmed_mean
from latlab.harness.statistics.verdicts import throttled
from latlab.harness.telemetry.energy import power_w
from latlab.harness.telemetry.readings import clock_limit_mhz, clock_mhz, hottest_c
from latlab.harness.telemetry.recorded_pass import RecordedPass

__all__ = ["TRIM", "Sustained", "SustainedPass", "Window", "legible_window_s", "nice_window_s", "summarise", "windows"]

TRIM = 0.1
"""Share of a window's samples cut at each end for its mean."""
MOST_WINDOWS = 30
COMPARED_S = 60.0
"""The first minute and the last one are compared; of shorter runs, the first and the last quarter."""
LIMITED = 0.99
"""Of the highest limit of the clock in a run: below it, the clock is throttled."""
_ROUND_S = (1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600)


@dataclass(frozen=True)
class SustainedPass:
    """One of the passes that follow one another without a pause in a sustained run."""

    began_s: float
    """Seconds from the start of the run to the start of this pass, on the device's clock."""
    recorded: RecordedPass
    gpu: int | None = None
    """NVML's index of the GPU that ran the network; None for a network on the CPU."""

    @cached_property
    def samples_ms(self) -> NDArray[np.float64]:
        """Latencies in ms, in order: of every inference, or one mean where the device reports no more."""
        return np.asarray(self.recorded.samples_ns, dtype=np.float64) / 1e6

    @property
    def runs(self) -> int:
        """Inferences in the pass."""
        return self.recorded.inferences

    @property
    def busy_s(self) -> float:
        """Seconds that these inferences took."""
        return self.recorded.inference_s

    @property
    def ended_s(self) -> float:
        """Seconds from the start of the run to the end of this pass."""
        return self.began_s + self.busy_s

    @cached_property
    def median_ms(self) -> float:
        """Median latency in ms."""
        return float(np.median(self.samples_ms))

    @cached_property
    def temperature_c(self) -> float | None:
        """Degrees Celsius of the hottest sensor after the pass, or None."""
        return hottest_c(self.recorded.telemetry.get("after"))

    @cached_property
    def clock_mhz(self) -> float | None:
        """Clock of the fastest CPU, or of the GPU that ran the network, in MHz, or None."""
        return clock_mhz(self.recorded.telemetry, self.gpu)

    @cached_property
    def clock_limit_mhz(self) -> float | None:
        """Highest clock in MHz that a CPU might have after the pass, or None; heat lowers it."""
        return clock_limit_mhz(self.recorded.telemetry)

    @cached_property
    def power_w(self) -> float | None:
        """Mean power during the pass in watts, or None."""
        return power_w(self.recorded.telemetry, self.busy_s, self.gpu)


@dataclass(frozen=True)
class Window:
    """What the passes that begin in a span of time have in common."""

    start_s: float
    end_s: float
    runs: int
    median_ms: float
    mean_ms: float
    """Trimmed."""
    p10_ms: float
    p90_ms: float
    temperature_c: float | None
    clock_mhz: float | None
    power_w: float | None
    throttled_s: float
    """Of passes with a throttled clock."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Sustained:
    """A whole run."""

    seconds: float
    """From its beginning to the end of its last pass."""
    busy_s: float
    runs: int
    mean_ms: float
    """Trimmed, of all samples."""
    first: Window
    last: Window
    slowest: Window
    """Of all minutes, or quarters; its mean is the highest."""
    throttled_s: float
    throttled_from_s: float | None
    """When a clock was throttled for the first time; None: never."""
    hottest_c: float | None
    energy_mj: float | None
    """Per inference; None where it is not known."""

    @property
    def slowdown_percent(self) -> float:
        """By how much the last minute is slower than the first."""
        return 100 * (self.last.mean_ms / self.first.mean_ms - 1)

    @property
    def busy_percent(self) -> float:
        """Share of the time in which inference ran; telemetry and messages between passes take the rest."""
        return min(100.0, 100 * self.busy_s / self.seconds)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "slowdown_percent": self.slowdown_percent, "busy_percent": self.busy_percent}


def nice_window_s(seconds: float, most: int = MOST_WINDOWS) -> float:
    """A round length, of which at most `most` fill a run of so many seconds."""
    least = seconds / most
    return float(next((length for length in _ROUND_S if length >= least - 1e-9), math.ceil(least)))


def legible_window_s(readings: Sequence[SustainedPass], wanted_s: float) -> float:
    """At least so long that hardly a window is without a pass."""
    spacings = [after.began_s - before.began_s for before, after in pairwise(readings)]
    return max(wanted_s, 2 * median(spacings) if spacings else 0.0, 1e-3)


def windows(readings: Sequence[SustainedPass], window_s: float) -> list[Window]:
    """One after another from the beginning; those without a pass (the device was lost meanwhile) are left out."""
    slow = _throttled(readings)
    groups: dict[int, list[int]] = {}
    for place, reading in enumerate(readings):
        groups.setdefault(int(reading.began_s // window_s), []).append(place)
    return [
        _window(readings, places, slow, index * window_s, (index + 1) * window_s)
        for index, places in sorted(groups.items())
    ]


def summarise(readings: Sequence[SustainedPass]) -> Sustained:
    """Raises `ValueError` without readings."""
    if not readings:
        raise ValueError("a run without a pass has nothing to summarise")
    slow = _throttled(readings)
    seconds = max(reading.ended_s for reading in readings)
    compared_s = min(COMPARED_S, seconds / 4)
    first = [place for place, reading in enumerate(readings) if reading.began_s < compared_s] or [0]
    last = [place for place, reading in enumerate(readings) if reading.ended_s > seconds - compared_s]
    everything = np.concatenate([reading.samples_ms for reading in readings])
    powered = [(reading.power_w, reading) for reading in readings]
    known = [(power, reading) for power, reading in powered if power is not None]
    temperatures = [c for c in (reading.temperature_c for reading in readings) if c is not None]
    runs = sum(reading.runs for reading in readings)
    busy_s = sum(reading.busy_s for reading in readings)
    energy_mj = None
    if known:
        joules = sum(power * reading.busy_s for power, reading in known)
        energy_mj = 1000 * joules / sum(reading.runs for _, reading in known)
    return Sustained(
        seconds=seconds,
        busy_s=busy_s,
        runs=runs,
        mean_ms=trimmed_mean(everything.tolist(), TRIM),
        first=_window(readings, first, slow, 0.0, compared_s),
        last=_window(readings, last, slow, seconds - compared_s, seconds),
        slowest=max(windows(readings, compared_s), key=lambda window: window.mean_ms),
        throttled_s=sum(reading.busy_s for reading, is_slow in zip(readings, slow, strict=True) if is_slow),
        throttled_from_s=next(
            (reading.began_s for reading, is_slow in zip(readings, slow, strict=True) if is_slow), None
        ),
        hottest_c=max(temperatures, default=None),
        energy_mj=energy_mj,
    )


def _window(
    readings: Sequence[SustainedPass], places: Sequence[int], slow: Sequence[bool], start_s: float, end_s: float
) -> Window:
    chosen = [readings[place] for place in places]
    samples = np.concatenate([reading.samples_ms for reading in chosen])
    low, middle, high = np.quantile(samples, [0.1, 0.5, 0.9])
    return Window(
        start_s=start_s,
        end_s=end_s,
        runs=sum(reading.runs for reading in chosen),
        median_ms=float(middle),
        mean_ms=trimmed_mean(samples.tolist(), TRIM),
        p10_ms=float(low),
        p90_ms=float(high),
        temperature_c=_mean(reading.temperature_c for reading in chosen),
        clock_mhz=_mean(reading.clock_mhz for reading in chosen),
        power_w=_mean(reading.power_w for reading in chosen),
        throttled_s=sum(readings[place].busy_s for place in places if slow[place]),
    )


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _throttled(readings: Sequence[SustainedPass]) -> list[bool]:
    """Whether each pass ran with a throttled clock: by a verdict's signs, or because its limit is below the run's."""
    usual_mhz = max((one.clock_mhz for one in readings if one.clock_mhz is not None), default=None)
    highest_mhz = max((one.clock_limit_mhz for one in readings if one.clock_limit_mhz is not None), default=0.0)
    return [
        (one.clock_limit_mhz is not None and one.clock_limit_mhz < LIMITED * highest_mhz)
        or bool(throttled([one.recorded], usual_mhz))
        for one in readings
    ]
