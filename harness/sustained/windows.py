"""A run of minutes, window by window: pure functions of what its passes recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.statistics.estimators import trimmed_mean
from latlab.harness.statistics.verdicts import PassRecord, throttled
from latlab.harness.telemetry.energy import power_w
from latlab.harness.telemetry.readings import SENSIBLE_C, number

__all__ = ["TRIM", "Reading", "Sustained", "Window", "legible_window_s", "nice_window_s", "summarise", "windows"]

TRIM = 0.1
"""Share of a window's samples cut at each end for its mean."""
MOST_WINDOWS = 30
COMPARED_S = 60.0
"""The first minute and the last one are compared; of shorter runs, the first and the last quarter."""
LIMITED = 0.99
"""Of the highest limit of the clock in a run: below it, the clock is throttled."""
_ROUND_S = (1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600)


@dataclass(frozen=True)
class Reading:
    """One of the passes that follow upon one another."""

    began_s: float
    """Since the run began, on the device's clock."""
    samples_ms: NDArray[np.float64]
    """In order: of every run, or one mean where the device tells no more."""
    runs: int
    busy_s: float
    """That the runs took."""
    telemetry: Mapping[str, Any]
    gpu: int | None = None
    """NVML's number of the GPU that they ran on."""

    @property
    def ended_s(self) -> float:
        return self.began_s + self.busy_s

    @cached_property
    def median_ms(self) -> float:
        return float(np.median(self.samples_ms))

    @cached_property
    def temperature_c(self) -> float | None:
        """The hottest sensor after it."""
        zones = self._after.get("temperature_c")
        found = [number(zones, name) for name in zones] if isinstance(zones, dict) else []
        found += [number(gpu, "temperature_c") for gpu in self._listed("gpu")]
        return max((c for c in found if c is not None and SENSIBLE_C[0] <= c <= SENSIBLE_C[1]), default=None)

    @cached_property
    def clock_mhz(self) -> float | None:
        """Of the fastest core right after it, or of its GPU."""
        if self.gpu is not None:
            gpus = self._listed("gpu")
            return number(gpus[self.gpu], "sm_mhz") if self.gpu < len(gpus) else None
        return self._fastest("frequency_mhz")

    @cached_property
    def clock_limit_mhz(self) -> float | None:
        """What the fastest core may have, which heat lowers."""
        return self._fastest("clock_limit_mhz")

    def _fastest(self, name: str) -> float | None:
        found = [number({name: clock}, name) for clock in self._listed(name)]
        return max((clock for clock in found if clock is not None), default=None)

    def _listed(self, name: str) -> list[Any]:
        found = self._after.get(name)
        return found if isinstance(found, list) else []

    @property
    def _after(self) -> dict[str, Any]:
        found = self.telemetry.get("after")
        return found if isinstance(found, dict) else {}

    @cached_property
    def power_w(self) -> float | None:
        return power_w(self.telemetry, self.busy_s, self.gpu)


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


def legible_window_s(readings: Sequence[Reading], wanted_s: float) -> float:
    """At least so long that hardly a window is without a pass."""
    spacings = [after.began_s - before.began_s for before, after in pairwise(readings)]
    return max(wanted_s, 2 * median(spacings) if spacings else 0.0, 1e-3)


def windows(readings: Sequence[Reading], window_s: float) -> list[Window]:
    """One after another from the beginning; those without a pass (the device was lost meanwhile) are left out."""
    slow = _throttled(readings)
    groups: dict[int, list[int]] = {}
    for place, reading in enumerate(readings):
        groups.setdefault(int(reading.began_s // window_s), []).append(place)
    return [
        _window(readings, places, slow, index * window_s, (index + 1) * window_s)
        for index, places in sorted(groups.items())
    ]


def summarise(readings: Sequence[Reading]) -> Sustained:
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
    readings: Sequence[Reading], places: Sequence[int], slow: Sequence[bool], start_s: float, end_s: float
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


def _throttled(readings: Sequence[Reading]) -> list[bool]:
    """Whether each pass ran with a throttled clock: by a verdict's signs, or because its limit is below the run's."""
    usual_mhz = max((one.clock_mhz for one in readings if one.clock_mhz is not None), default=None)
    highest_mhz = max((one.clock_limit_mhz for one in readings if one.clock_limit_mhz is not None), default=0.0)
    return [
        (one.clock_limit_mhz is not None and one.clock_limit_mhz < LIMITED * highest_mhz)
        or bool(throttled([PassRecord((), one.began_s, one.telemetry)], usual_mhz))
        for one in readings
    ]
