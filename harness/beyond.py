"""What is known of a network on a device beyond its latency: memory, energy, times of loading and of the first run.

Everything is computed from what devices tell, of which any part may be missing or nonsense: what is not known is
left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from latlab.harness.vitals import number

__all__ = ["METRICS", "Spent", "TimedPass", "metrics", "power_w", "runs_and_seconds", "spent"]

METRICS = {
    "first_ms": "the first inference, which allocates and compiles what later ones find ready",
    "open_ms": "opening the file in the runtime, before the first inference",
    "file_bytes": "size of the model file",
    "peak_memory_mb": "10^6 bytes by which the process grew at its peak, opening the network and running it once",
    "energy_mj": "energy per inference of all that the meter covers, what it spends at rest included",
}
"""Names of metrics, and what they mean."""

COUNTER_S = 0.005
"""Counters of energy move once a millisecond (RAPL): over shorter times they say nothing."""
BOARD_S, BATTERY_S, GPU_S = 0.1, 2.0, 1.0
"""Meters of power show the mean of a while that has passed: a pass has to last as long to be what they show."""
LEAST_WHOLE = 0.99
"""Of the inference time, that lies between two readings around it, but for roundings."""
LEAST_SHARE = 0.5
"""Of the time between two readings of a counter that inference has to fill."""
TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")
"""How Jetsons label the channel that feeds the whole board. Without one, channels are parts of it, and add up."""


class TimedPass(Protocol):
    """`device.Timed`, or a `Pass` of the store."""

    @property
    def warmup_ns(self) -> list[int]: ...
    @property
    def samples_ns(self) -> list[int]: ...
    @property
    def telemetry(self) -> dict[str, Any]: ...


class Spent(NamedTuple):
    """Energy over a time in which inference ran."""

    joules: float
    seconds: float


def metrics(facts: Mapping[str, Any], passes: Iterable[TimedPass], file_bytes: int) -> dict[str, float]:
    """What there is of `METRICS` for one network.

    Energy per inference is mean power times mean duration, both over all passes, so that what a device does between
    readings of its counters and the network's runs is not counted as the network's: sum(J) / sum(s between readings)
    * sum(s of inference) / inferences.

    Args:
        facts: of `Loaded`, as `DeviceSession.load` gives them.
        passes: of the network, warm-up included.
        file_bytes: size of its file.
    """
    found: dict[str, float] = {"file_bytes": float(file_bytes)} if file_bytes > 0 else {}
    for name, key in (("first_ms", "first_ns"), ("open_ms", "load_ns")):
        value = number(facts, key)
        if value is not None and value > 0:
            found[name] = value / 1e6
    peak = number(facts, "memory", "peak_mb")
    if peak is not None and peak > 0:
        found["peak_memory_mb"] = peak
    gpu = number(facts, "gpu")
    joules = measured_s = busy_s = 0.0
    inferences = 0
    for one in passes:
        runs, seconds = runs_and_seconds(one)
        energy = spent(one.telemetry, seconds, None if gpu is None else int(gpu))
        if energy is not None:
            joules, measured_s = joules + energy.joules, measured_s + energy.seconds
            busy_s, inferences = busy_s + seconds, inferences + runs
    if joules > 0 and inferences:
        found["energy_mj"] = 1000 * joules / measured_s * busy_s / inferences
    return found


def runs_and_seconds(one: TimedPass) -> tuple[int, float]:
    """Inferences of a pass, and the seconds that they took; warm-up included, where its runs are known one by one."""
    aggregate = number(one.telemetry, "aggregate", "runs")
    if aggregate is not None:
        return int(aggregate), aggregate * sum(one.samples_ns) / max(1, len(one.samples_ns)) / 1e9
    calls = int(number(one.telemetry, "calls") or 1)
    runs = len(one.warmup_ns) + calls * len(one.samples_ns)
    return runs, (sum(one.warmup_ns) + calls * sum(one.samples_ns)) / 1e9


def spent(telemetry: Mapping[str, Any], seconds: float, gpu: int | None = None) -> Spent | None:
    """Energy around a pass; None where it is not known, or the pass is too short for the meter.

    On an NVIDIA GPU, that board's alone; else the processor's and its memory's counters, else the board's meters, else
    the battery's.

    Args:
        telemetry: with the readings `before` and `after`.
        seconds: that inference took in between.
        gpu: NVML's number of the one that the network runs on.
    """
    before, after = (_readings(telemetry.get(name)) for name in ("before", "after"))
    if gpu is not None:
        own = f"gpu {gpu}"
        return _counted(before, after, [own], seconds) or _metered(after, [own], seconds, GPU_S)
    counters = [name for name in _names(after, "uj") if not name.startswith("gpu ")]
    meters = [name for name in _names(after, "mw") if name != "battery" and not name.startswith("gpu ")]
    totals = [name for name in meters if name.startswith(TOTALS)]
    return (
        _counted(before, after, counters, seconds)
        or _metered(after, totals or meters, seconds, BOARD_S)
        or _metered(after, ["battery"], seconds, BATTERY_S)
    )


def power_w(telemetry: Mapping[str, Any], seconds: float, gpu: int | None = None) -> float | None:
    """Mean power during a pass; see `spent`."""
    energy = spent(telemetry, seconds, gpu)
    return None if energy is None else energy.joules / energy.seconds


def _readings(state: Any) -> Mapping[str, Any]:
    found = state.get("energy") if isinstance(state, dict) else None
    return found if isinstance(found, dict) else {}


def _names(readings: Mapping[str, Any], kind: str) -> list[str]:
    found = readings.get(kind)
    return list(found) if isinstance(found, dict) else []


def _counted(before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str], seconds: float) -> Spent | None:
    began, ended = number(before, "at_s"), number(after, "at_s")
    if not names or began is None or ended is None:
        return None
    elapsed = ended - began
    if elapsed < max(COUNTER_S, LEAST_WHOLE * seconds) or seconds < LEAST_SHARE * elapsed:
        return None
    microjoules = 0.0
    for name in names:
        first, last = number(before, "uj", name), number(after, "uj", name)
        if first is None or last is None or last < first:
            return None
        microjoules += last - first
    return Spent(microjoules / 1e6, elapsed) if microjoules else None


def _metered(after: Mapping[str, Any], names: Sequence[str], seconds: float, least_s: float) -> Spent | None:
    powers = [number(after, "mw", name) for name in names]
    known = [power for power in powers if power is not None and power > 0]
    if not known or seconds < least_s:
        return None
    return Spent(sum(known) / 1000 * seconds, seconds)
