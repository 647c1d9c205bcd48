"""Energy during a pass, from counters of energy and meters of power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from latlab.harness.telemetry.readings import number

__all__ = ["Energy", "energy_of", "power_w"]


COUNTER_S = 0.005
"""Least seconds between two readings of an energy counter: RAPL's move once a millisecond."""
BOARD_S, BATTERY_S, GPU_S = 0.1, 2.0, 1.0
"""Least seconds of a pass for the meter of a board, a battery or a GPU: it shows the mean power of a past interval,
which the pass has to fill."""
LEAST_WHOLE = 0.99
"""Least share of the inference time that has to lie between two readings of a counter; all of it does, except for
rounding."""
LEAST_SHARE = 0.5
"""Least share of the time between two readings of a counter that inference has to fill."""
TOTALS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Labels of the channel that feeds the whole board, on Jetsons. Without one, the channels are parts of the board, and
their sum counts."""


class Energy(NamedTuple):
    """Energy that was spent in an interval in which inferences ran."""

    joules: float
    seconds: float
    """Length of the interval."""


def energy_of(telemetry: Mapping[str, Any], seconds: float, gpu: int | None = None) -> Energy | None:
    """Return the energy spent around a pass, or None if it is not known or the pass is too short for the meter.

    For a network on an NVIDIA GPU it is the energy of that board alone. Else it comes from the counters of the
    processor and its memory, else from the board's meters, else from the battery's.

    Args:
        telemetry: of one pass, with the readings `before` and `after`.
        seconds: time that inference took between the two.
        gpu: NVML's index of the GPU that the network ran on; None for a network on the CPU.
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
    """Return the mean power during a pass in watts, or None; the arguments are those of `energy_of`."""
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
    """Return the energy by counters, which give microjoules (`uj`) before and after the pass."""
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
    """Return the energy by meters, which give milliwatts (`mw`) right after the pass."""
    powers = [number(after, "mw", name) for name in names]
    known = [power for power in powers if power is not None and power > 0]
    if not known or seconds < least_s:
        return None
    return Energy(sum(known) / 1000 * seconds, seconds)
