"""Whether a network's samples can be believed: pure functions of what one measurement recorded.

Several things may be wrong with one measurement. A verdict names the gravest: what has changed the device comes
before what has disturbed it, and before what is seen in the samples alone. All of them are told in its `why`.

Sources:
    Santer et al. (2000), J. Geophys. Res. 105, 7337-7356: a trend's t test with the number of samples that are
        as good as independent, n (1 - r) / (1 + r).
    Ashman, Bird and Zepf (1994), Astron. J. 108, 2348-2361: how far apart two clusters are, D.
    Otsu (1979), IEEE Trans. SMC 9, 62-66: where two clusters are best divided.
    NVBench (github.com/NVIDIA/nvbench): a clock below 75 % of its default is a throttled one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from latlab.agents.protocol.pass_request import THROTTLE_SHARE
from latlab.harness.statistics.estimators import (
    NoiseModel,
    ar1_inflation,
    autocorrelation,
    summarise,
    t_quantile,
    trimmed_mean,
    winsorise,
    winsorised_stderr,
)
from latlab.harness.telemetry.readings import clock_mhz, hottest_c, number, throttle_state
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["KINDS", "Verdict", "judge", "judge_together", "throttled", "usual_clock_mhz"]

KINDS = ("", "throttled", "drift", "disturbed", "bimodal", "noisy")
"""A good measurement, then from the gravest to the least."""

USUAL_PRECISION = 0.05
"""Half the interval's width, as a share of the latency, above which a policy without a precision is called noisy."""
SIGNIFICANCE = 0.01
"""Of tests for drift: so many steady networks in a hundred are called drifting, at most."""
TREND_FREEDOM = 30.0
"""Degrees of freedom that the samples' scatter has at least in the usual presets."""
STRAIGHTNESS = 0.05
"""Of the same tests against the line's own residuals, where passes are few: a burst is no drift."""
LEAST_DRIFT = 0.01
"""A change of the latency by less than this share, from the first sample to the last, is none."""
LEAST_STEP = 0.1
"""By how much a throttled clock slows runs at least; and how much warmer it has become then, in degrees."""
LEAST_WARMING_C = 1.0
STEP_T = 5.0
"""The t statistic of a step, which is the largest over all places where it could be."""
LEAST_SHARE = 0.1
"""Of the samples in the smaller of two clusters: fewer are outliers."""
LEAST_PULL = 0.02
"""By how much something moves the mean, as a share of it: two clusters that hardly differ are one."""
LEAST_NETWORKS = 10
"""Of a session, from which on they tell something about each other."""
LEAST_MODES = 20
"""Samples from which two clusters can be told."""
SEPARATION = 5.0
"""Ashman's D of two clusters. Halves of a normal distribution have 2.6, and 2 is what eyes need."""
STOLEN = 0.02
"""Share of CPU time taken by the hypervisor, above which it shows."""
STOLEN_TICKS = 2
SLICE_US = 1000.0
"""What an interruption costs, about: the least time for which Linux lets another process run (EEVDF's base slice)."""
PRESSURE = 0.2
"""Share of the time in which something waited for a CPU: explains a wide interval, but is the whole machine's."""
HOT_REASONS = frozenset({"hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake"})
"""Of NVML's: what holds a GPU's clock below what it is sold for (a power cap does that at times, see the clock)."""


@dataclass(frozen=True)
class Verdict:
    kind: str
    """One of `KINDS`; "" for a good measurement."""
    why: str
    """In words, with figures; "" for a good measurement."""
    slow_share: float = 0.0
    """Of its runs, in the slower of two clusters; 0 where there is one."""

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.kind)


def judge(
    records: Sequence[RecordedPass],
    policy: TimingPolicy,
    usual_mhz: float | None = None,
    noise_model: NoiseModel | None = None,
) -> Verdict:
    """What is wrong with a measurement that has ended.

    Args:
        records: of all passes of one network, in order; at least one, none without samples.
        usual_mhz: the clock that is usual on this device (`usual_clock_mhz` over the session); without it, the
            highest of these records is taken for usual, and a clock that is low in all of them goes unseen.
        scatter: of the session (`quality.noise_model`), where it is known.

    Raises:
        ValueError: without records, or where one has no samples.
    """
    if not records or not all(record.samples_ns for record in records):
        raise ValueError("a verdict needs at least one pass, and at least one sample in each")
    passes = [record.samples_ns for record in records]
    summary = summarise(passes, policy.trim, noise_model)
    noisy = ""
    if summary.relative_half_width > (policy.precision or USUAL_PRECISION):
        noisy = f"the interval is ± {100 * summary.relative_half_width:.2g} % wide"
    clusters = _clusters(passes)
    found = {
        "throttled": throttled(records, usual_mhz) or _hot_step(records, policy.trim),
        "drift": _drift(records, policy.trim),
        "disturbed": _disturbed(records, policy.trim, bool(noisy)),
        "bimodal": _bimodal(*clusters) if clusters else "",
        "noisy": noisy,
    }
    kinds = [kind for kind in KINDS if found.get(kind)]
    slow_share = clusters[0] if clusters else 0.0
    return Verdict(kinds[0], "; ".join(found[kind] for kind in kinds), slow_share) if kinds else Verdict("", "")


def judge_together(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of a session's networks, where what some show is known to hold for all.

    A device with two speeds times a network in three short passes at one of them by chance, and nothing in these
    tells. But others have seen both: if so many of all runs in the session are slow that a 10 % trimmed mean has some
    of them in it, networks that have met one speed only are "bimodal" too. Slow runs whose cause is known do not count.
    """
    share = fmean(verdict.slow_share * (verdict.kind == "bimodal") for verdict in verdicts) if verdicts else 0.0
    if len(verdicts) < LEAST_NETWORKS or share <= LEAST_SHARE:
        return list(verdicts)
    why = f"{100 * share:.0f} % of all runs in this session are slow ones, of a device with two speeds"
    return [verdict or Verdict("bimodal", why) for verdict in verdicts]


def usual_clock_mhz(telemetries: Sequence[Mapping[str, Any]]) -> float | None:
    """The clock that a device usually has after a pass: the upper quartile over a session's passes.

    None where it does not tell.
    """
    clocks = sorted(clock for clock in map(clock_mhz, telemetries) if clock is not None)
    return clocks[(3 * len(clocks)) // 4] if clocks else None


# Throttled


def throttled(records: Sequence[RecordedPass], usual_mhz: float | None) -> str:
    """Return how the device says that its clock was held back, in words; "" where it was not.

    Args:
        usual_mhz: the clock that is usual on this device, in MHz; None where it does not report one.
    """
    for place, record in enumerate(records, start=1):
        if _mapping(record.telemetry).get("throttled") is True:
            return f"pass {place} ran with a throttled clock"
        before, after = (throttle_state(_mapping(record.telemetry).get(when)) for when in ("before", "after"))
        for state in (before, after):
            if state and state.now:
                return f"the device was throttled in pass {place} (its bits are {state.value:#x})"
        if before is not None and after is not None and after.value > before.value:
            return f"the device throttled its clock in pass {place}"
        reasons = HOT_REASONS & _gpu_reasons(record)
        if reasons:
            return f"the GPU was held back in pass {place} ({', '.join(sorted(reasons))})"
    clocks = [clock_mhz(record.telemetry) for record in records]
    usual_mhz = max([clock for clock in (*clocks, usual_mhz) if clock is not None], default=None)
    for place, clock in enumerate(clocks, start=1):
        if clock is not None and usual_mhz and clock < THROTTLE_SHARE * usual_mhz:
            return f"the clock was at {clock:.0f} MHz after pass {place}, which is usually {usual_mhz:.0f}"
    return ""


def _gpu_reasons(record: RecordedPass) -> set[str]:
    return {
        reason
        for gpu in _list(_mapping(_mapping(record.telemetry).get("after")).get("gpu"))
        for reason in _list(_mapping(gpu).get("throttled_by"))
        if isinstance(reason, str)
    }


def _hot_step(records: Sequence[RecordedPass], trim: float) -> str:
    """The latency makes a step where no telemetry tells of a clock, and the temperature moves the same way."""
    first, last = _hottest_c(records[0], "before"), _hottest_c(records[-1], "after")
    if first is None or last is None or abs(last - first) < LEAST_WARMING_C:
        return ""
    values, noise = _series(records, trim)
    count, mean = len(values), fmean(values)
    # The t statistic is largest where the squares between the two parts are.
    best, place, total = 0.0, 0, 0.0
    for k in range(1, count):
        total += values[k - 1] - mean
        between = total**2 * count / (k * (count - k))
        if between > best:
            best, place = between, k
    if not place:
        return ""
    early, late = fmean(values[:place]), fmean(values[place:])
    if noise is None:
        noise, _ = _deviation([value - (early if k < place else late) for k, value in enumerate(values)])
    size = late / early - 1 if early else math.inf
    if best < (STEP_T * noise) ** 2 or abs(size) < LEAST_STEP or (size > 0) != (last > first):
        return ""
    return f"runs became {_longer(size)} at once, while it went from {first:.0f} to {last:.0f} °C"


def _hottest_c(record: RecordedPass, when: str) -> float | None:
    return hottest_c(_mapping(record.telemetry).get(when))


# Drift


def _drift(records: Sequence[RecordedPass], trim: float) -> str:
    """A straight line through the passes' latencies over time; with one or two passes, through the samples.

    t = slope / (noise / sqrt(sum (x - mean x)^2)) against Student's t, where the noise is that of a pass's latency by
    its own samples (`_series`). From three passes on, the line must also be straight: t against what is left around
    the line, with P - 2 degrees of freedom, else every burst in the last pass were a drift.
    """
    values, noise = _series(records, trim)
    if len(values) < 3:
        return ""
    clock = [record.at_s for record in records if record.at_s is not None]
    times: Sequence[float] = clock if len(clock) == len(values) == len(records) else range(len(values))
    centre = fmean(times)
    spread = math.sqrt(sum((time - centre) ** 2 for time in times))
    mean = fmean(values)
    if not (math.isfinite(spread) and spread > 0 and mean > 0):
        return ""
    slope = sum((time - centre) * (value - mean) for time, value in zip(times, values, strict=True)) / spread**2
    change = slope * (max(times) - min(times)) / mean
    rest = [value - mean - slope * (time - centre) for time, value in zip(times, values, strict=True)]
    freedom = len(values) - 2
    if noise is None:
        noise, good = _deviation(rest)
    else:
        good = TREND_FREEDOM
        left = math.sqrt(sum(value**2 for value in rest) / freedom)
        if abs(slope) * spread < t_quantile(1 - STRAIGHTNESS / 2, freedom) * left:
            return ""
    if abs(change) < LEAST_DRIFT or abs(slope) * spread < t_quantile(1 - SIGNIFICANCE / 2, int(good)) * noise:
        return ""
    return f"runs became {_longer(change)} from first to last"


def _series(records: Sequence[RecordedPass], trim: float) -> tuple[list[float], float | None]:
    """What is looked at over time, and the standard deviation of one of its values by the samples' scatter alone.

    From three passes on, the passes' trimmed means. Else the samples, Winsorised, whose deviation shows only around
    what is fitted to them.
    """
    passes = [record.samples_ns for record in records]
    if len(passes) < 3:
        return [sample for one in passes for sample in winsorise(one, trim)], None
    inflation = ar1_inflation(max(0.0, autocorrelation(passes, trim)), round(fmean(map(len, passes))))
    variance = fmean(winsorised_stderr(one, trim) ** 2 for one in passes)
    return [trimmed_mean(one, trim) for one in passes], math.sqrt(variance * inflation)


def _deviation(rest: Sequence[float]) -> tuple[float, float]:
    """Of successive samples around a fit of two numbers, and its degrees of freedom.

    Of n samples, n_e = n (1 - r) / (1 + r) are as good as independent: sqrt(sum(rest^2) / (n_e - 2)), with n_e - 2
    (Santer et al. 2000).
    """
    freedom = len(rest) / ar1_inflation(max(0.0, autocorrelation([rest], 0.0)), len(rest)) - 2
    return math.sqrt(sum(value**2 for value in rest) / max(1.0, freedom)), max(1.0, freedom)


def _longer(change: float) -> str:
    return f"{100 * abs(change):.2g} % {'longer' if change > 0 else 'shorter'}"


# Disturbed


def _disturbed(records: Sequence[RecordedPass], trim: float, noisy: bool) -> str:
    """Somebody else used the CPU during the passes, by the counters' rise from before to after each of them.

    Preemptions show in the label only where they hit more samples than are trimmed away, and are not short beside them.
    """
    stolen = sum(_rises(records, "cpu_ticks", "steal"))
    ticks = stolen + sum(_rises(records, "cpu_ticks", "busy")) + sum(_rises(records, "cpu_ticks", "idle"))
    if stolen >= STOLEN_TICKS and stolen > STOLEN * ticks:
        return f"the hypervisor took {100 * stolen / ticks:.0f} % of the CPUs' time away"
    count = sum(len(record.samples_ns) for record in records)
    timed_us = sum(sum(record.samples_ns) for record in records) / 1e3
    preempted = sum(_rises(records, "preemptions"))
    if preempted > max(1.0, trim * count) and preempted * SLICE_US > LEAST_PULL * timed_us:
        return f"other processes interrupted it {preempted:.0f} times in {count} runs"
    waited_us = sum(_rises(records, "pressure_us"))
    if noisy and waited_us > PRESSURE * timed_us:
        return f"processes waited for a CPU in {100 * min(1.0, waited_us / timed_us):.0f} % of the time"
    return ""


def _rises(records: Sequence[RecordedPass], *keys: str) -> Iterator[float]:
    """Yield by how much a counter rose in each pass, where it is known."""
    for record in records:
        before, after = number(record.telemetry, "before", *keys), number(record.telemetry, "after", *keys)
        if before is not None and after is not None and after > before:
            yield after - before


# Bimodal


def _clusters(passes: Sequence[Sequence[int]]) -> tuple[float, float] | None:
    """Two clusters of runs: share of the slower one, and how far apart they are, as a difference of logarithms.

    They are divided where the variance between them is largest (Otsu), and are two if Ashman's D = sqrt(2) |m1 - m2| /
    sqrt(s1^2 + s2^2) says so, none is mere outliers, and the smaller moves the mean of all.
    """
    values = sorted(math.log(max(1, sample)) for one in passes for sample in one)
    count = len(values)
    if count < LEAST_MODES:
        return None
    total = sum(values)
    best, place, below = 0.0, 0, 0.0
    for k in range(1, count):
        below += values[k - 1]
        apart = (below / k - (total - below) / (count - k)) ** 2 * k * (count - k)
        if apart > best:
            best, place = apart, k
    share = min(place, count - place) / count
    if share < LEAST_SHARE or min(place, count - place) < 2:
        return None
    low, high = values[:place], values[place:]
    gap = fmean(high) - fmean(low)
    noise_model = math.sqrt((_variance(low) + _variance(high)) / 2)
    if gap < SEPARATION * noise_model or share * gap < LEAST_PULL:
        return None
    return len(high) / count, gap


def _bimodal(slow_share: float, gap: float) -> str:
    return f"{100 * slow_share:.0f} % of the runs are {100 * math.expm1(gap):.0f} % longer than the others"


# What devices tell may be missing or of any type


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
