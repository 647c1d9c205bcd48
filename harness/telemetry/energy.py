"""Energy per inference, from counters and meters of power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from latlab.harness.telemetry.readings import number

__all__ = ["Energy", "energy_of", "power_w"]


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


class Energy(NamedTuple):
    """Energy over a time in which inferences ran."""

    joules: float
    seconds: float
    """Length of that time."""


def energy_of(telemetry: Mapping[str, Any], seconds: float, gpu: int | None = None) -> Energy | None:
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
    """Mean power during a pass; see `energy_of`."""
    energy = energy_of(telemetry, seconds, gpu)
    return None if energy is None else energy.joules / energy.seconds


def _readings(state: Any) -> Mapping[str, Any]:
    found = state.get("energy") if isinstance(state, dict) else None
    return found if isinstance(found, dict) else {}


def _names(readings: Mapping[str, Any], kind: str) -> list[str]:
    found = readings.get(kind)
    return list(found) if isinstance(found, dict) else []


def _counted(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Sequence[str], seconds: float
) -> Energy | None:
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
    return Energy(microjoules / 1e6, elapsed) if microjoules else None


def _metered(after: Mapping[str, Any], names: Sequence[str], seconds: float, least_s: float) -> Energy | None:
    powers = [number(after, "mw", name) for name in names]
    known = [power for power in powers if power is not None and power > 0]
    if not known or seconds < least_s:
        return None
    return Energy(sum(known) / 1000 * seconds, seconds)
