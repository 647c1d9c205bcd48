"""A sustained run cut into windows of time: pure functions of what its passes recorded."""

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
"""Most windows of a run, unless a length is asked for."""
COMPARED_S = 60.0
"""Seconds at the start and at the end that are compared; in a run below four minutes, its first and last quarter."""
LIMITED = 0.99
"""Share of the highest clock limit of a run below which the clock counts as throttled."""
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
    """The passes that begin in one span of time, in figures."""

    start_s: float
    """Seconds from the start of the run to the start of the window."""
    end_s: float
    runs: int
    """Inferences of its passes."""
    median_ms: float
    mean_ms: float
    """Trimmed mean of the samples."""
    p10_ms: float
    """10 % quantile of the samples; `p90_ms` is the 90 % quantile."""
    p90_ms: float
    temperature_c: float | None
    """Mean over passes of the hottest sensor's temperature in degrees Celsius, or None."""
    clock_mhz: float | None
    """Mean clock over passes, or None."""
    power_w: float | None
    """Mean power in watts over passes, or None."""
    throttled_s: float
    """Seconds of inference in passes with a throttled clock."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Sustained:
    """A whole sustained run in figures."""

    seconds: float
    """Seconds from its start to the end of its last pass."""
    busy_s: float
    """Seconds of inference."""
    runs: int
    """Inferences."""
    mean_ms: float
    """Trimmed mean of all samples."""
    time_weighted_ms: float
    """Mean over the time under load: the trimmed mean of each pass counts by the seconds that its inferences took. A
    slow minute weighs as much as a fast one, although fewer inferences fit into it."""
    first: Window
    """The first minute, or quarter of a short run."""
    last: Window
    """The last minute, or quarter."""
    slowest: Window
    """The minute, or quarter, with the highest mean."""
    throttled_s: float
    """Seconds of inference in passes with a throttled clock."""
    throttled_from_s: float | None
    """Seconds from the start to the first pass with a throttled clock; None if there is none."""
    hottest_c: float | None
    """Highest temperature after a pass in degrees Celsius, or None."""
    energy_mj: float | None
    """Energy per inference in mJ; None if not known."""

    @property
    def worst_percent(self) -> float:
        """Percentage by which the worst minute, or quarter, is slower than the time-weighted mean."""
        return 100 * (self.slowest.mean_ms / self.time_weighted_ms - 1)

    @property
    def throttled_percent(self) -> float:
        """Percentage of the time under load in which the clock was throttled."""
        return 100 * self.throttled_s / self.busy_s if self.busy_s else 0.0

    @property
    def slowdown_percent(self) -> float:
        """Percentage by which the last minute is slower than the first."""
        return 100 * (self.last.mean_ms / self.first.mean_ms - 1)

    @property
    def busy_percent(self) -> float:
        """Percentage of the time in which inference ran; telemetry and messages between passes take the rest."""
        return min(100.0, 100 * self.busy_s / self.seconds)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with those that follow from them."""
        derived = ("worst_percent", "throttled_percent", "slowdown_percent", "busy_percent")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}


def nice_window_s(seconds: float, most: int = MOST_WINDOWS) -> float:
    """Return a round length of a window in seconds, of which at most `most` fill a run of `seconds`."""
    least = seconds / most
    return float(next((length for length in _ROUND_S if length >= least - 1e-9), math.ceil(least)))


def legible_window_s(passes: Sequence[SustainedPass], wanted_s: float) -> float:
    """Return `wanted_s`, or more if passes are so far apart that many windows would have none."""
    spacings = [after.began_s - before.began_s for before, after in pairwise(passes)]
    return max(wanted_s, 2 * median(spacings) if spacings else 0.0, 1e-3)


def windows(passes: Sequence[SustainedPass], window_s: float) -> list[Window]:
    """Return the windows of a run in order; those without a pass (while the device was lost) are left out.

    Args:
        readings: the passes of the run, in order.
        window_s: seconds of a window.
    """
    slow = _throttled(passes)
    groups: dict[int, list[int]] = {}
    for place, reading in enumerate(passes):
        groups.setdefault(int(reading.began_s // window_s), []).append(place)
    return [
        _window(passes, places, slow, index * window_s, (index + 1) * window_s)
        for index, places in sorted(groups.items())
    ]


def summarise(passes: Sequence[SustainedPass]) -> Sustained:
    """Return the figures of a whole run.

    Raises:
        ValueError: if there are no passes.
    """
    if not passes:
        raise ValueError("a run without a pass has nothing to summarise")
    slow = _throttled(passes)
    seconds = max(reading.ended_s for reading in passes)
    compared_s = min(COMPARED_S, seconds / 4)
    first = [place for place, reading in enumerate(passes) if reading.began_s < compared_s] or [0]
    last = [place for place, reading in enumerate(passes) if reading.ended_s > seconds - compared_s]
    everything = np.concatenate([reading.samples_ms for reading in passes])
    powered = [(reading.power_w, reading) for reading in passes]
    known = [(power, reading) for power, reading in powered if power is not None]
    temperatures = [c for c in (reading.temperature_c for reading in passes) if c is not None]
    runs = sum(reading.runs for reading in passes)
    busy_s = sum(reading.busy_s for reading in passes)
    energy_mj = None
    if known:
        joules = sum(power * reading.busy_s for power, reading in known)
        energy_mj = 1000 * joules / sum(reading.runs for _, reading in known)
    return Sustained(
        seconds=seconds,
        busy_s=busy_s,
        runs=runs,
        mean_ms=trimmed_mean(everything.tolist(), TRIM),
        time_weighted_ms=_time_weighted(passes),
        first=_window(passes, first, slow, 0.0, compared_s),
        last=_window(passes, last, slow, seconds - compared_s, seconds),
        slowest=max(windows(passes, compared_s), key=lambda window: window.mean_ms),
        throttled_s=sum(reading.busy_s for reading, is_slow in zip(passes, slow, strict=True) if is_slow),
        throttled_from_s=next(
            (reading.began_s for reading, is_slow in zip(passes, slow, strict=True) if is_slow), None
        ),
        hottest_c=max(temperatures, default=None),
        energy_mj=energy_mj,
    )


def _time_weighted(passes: Sequence[SustainedPass]) -> float:
    """Return the mean latency in ms over the time that inferences took: sum(t m) / sum(t), m the mean of a pass.

    Means of passes are trimmed as those of windows are: a mean of all samples might be above the worst window's.
    """
    return float(
        np.average(
            [trimmed_mean(one.samples_ms.tolist(), TRIM) for one in passes],
            weights=[max(one.busy_s, 1e-9) for one in passes],
        )
    )


def _window(
    passes: Sequence[SustainedPass], places: Sequence[int], slow: Sequence[bool], start_s: float, end_s: float
) -> Window:
    chosen = [passes[place] for place in places]
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
        throttled_s=sum(passes[place].busy_s for place in places if slow[place]),
    )


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _throttled(passes: Sequence[SustainedPass]) -> list[bool]:
    """Return for each pass whether its clock was throttled: the device says so, or lowered the limit of its clock."""
    usual_mhz = max((one.clock_mhz for one in passes if one.clock_mhz is not None), default=None)
    highest_mhz = max((one.clock_limit_mhz for one in passes if one.clock_limit_mhz is not None), default=0.0)
    return [
        (one.clock_limit_mhz is not None and one.clock_limit_mhz < LIMITED * highest_mhz)
        or bool(throttled([one.recorded], usual_mhz))
        for one in passes
    ]
