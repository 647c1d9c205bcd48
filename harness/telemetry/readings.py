"""The one typed reading of what devices say: temperatures, clocks, throttling, and numbers and text anywhere in it.

Everything comes from somebody's device and may be missing or nonsense. A value that cannot be understood is None.
A `state` is one reading of a device's sensors (`agents.system.telemetry.Telemetry.read`); the `telemetry` of a pass
has two of them, `before` and `after`, and what else the worker reports of the pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

from latlab.harness.text import printable

__all__ = [
    "ThrottleState",
    "clock_limit_mhz",
    "clock_mhz",
    "cpu_clocks_mhz",
    "hottest_c",
    "hottest_sensor",
    "number",
    "temperatures_c",
    "text",
    "throttle_state",
]

SENSIBLE_C = (-40.0, 130.0)
"""Degrees Celsius between which a sensor is believed: broken ones, and those that measure something else, are not."""
PI_REASONS = {
    0x1: "too little voltage",
    0x2: "clock capped",
    0x4: "throttled",
    0x8: "at its soft temperature limit",
}
"""Bits of the Raspberry Pi's `vcgencmd get_throttled` that hold now; the same bits 16 places further up: since boot."""
_PI_NOW, _PI_SINCE_BOOT = 0xF, 0xF0000
MOST_SENSORS, MOST_GPUS, MOST_CPUS = 256, 64, 4096
"""Entries of a list that are looked at: a device may send any number."""


class ThrottleState(NamedTuple):
    """How a device says that its clock is or was held back."""

    value: int
    """As the device reports it: the Raspberry Pi's bits, or a count of events since boot."""
    now: tuple[str, ...]
    """Reasons that hold now; only a Raspberry Pi gives them."""
    since_boot: tuple[str, ...]
    """Reasons that have held since boot; only a Raspberry Pi gives them."""


def number(value: Any, *path: str) -> float | None:
    """Return the finite number at a place in nested tables, or None."""
    value = _at(value, path)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e18:
        return None
    return float(value) if math.isfinite(value) else None


def text(value: Any, *path: str) -> str | None:
    """Return the text at a place in nested tables, fit for a terminal and at most 200 characters long, or None."""
    value = _at(value, path)
    return printable(value[:200]).strip() or None if isinstance(value, str) else None


def temperatures_c(state: Any) -> dict[str, float]:
    """Return the temperature in degrees Celsius of every sensor that is believed.

    GPUs are sensors called `gpu 0`, `gpu 1` and so on. Values outside `SENSIBLE_C` are left out.
    """
    zones = _at(state, ("temperature_c",))
    found = {str(name): number(zones, name) for name in list(zones)[:MOST_SENSORS]} if isinstance(zones, dict) else {}
    for place, gpu in enumerate(_listed(state, "gpu")[:MOST_GPUS]):
        found[f"gpu {place}"] = number(gpu, "temperature_c")
    return {name: c for name, c in found.items() if c is not None and SENSIBLE_C[0] <= c <= SENSIBLE_C[1]}


def hottest_sensor(state: Any) -> tuple[str, float] | None:
    """Return the name and the degrees Celsius of the hottest sensor, or None where the device reports none."""
    sensors = temperatures_c(state)
    return max(sensors.items(), key=lambda item: item[1]) if sensors else None


def hottest_c(state: Any, zone: str | None = None) -> float | None:
    """Return the temperature of a zone, or of the hottest sensor, in degrees Celsius, or None.

    Args:
        zone: name of a sensor (`gpu 0` is one); None for the hottest of all.
    """
    if zone is not None:
        return temperatures_c(state).get(zone)
    hottest = hottest_sensor(state)
    return hottest[1] if hottest else None


def cpu_clocks_mhz(state: Any, name: str = "frequency_mhz") -> list[float]:
    """Return the clock of each CPU in MHz, of those that report one.

    Args:
        name: `frequency_mhz` for the clock that a CPU has, `clock_limit_mhz` for the one that it may have now, or
            `max_mhz` (of the `cpus` in a `hello`) for the highest that it ever has.
    """
    found = [number({"mhz": value}, "mhz") for value in _listed(state, name)[:MOST_CPUS]]
    return [clock for clock in found if clock is not None and clock > 0]


def clock_mhz(telemetry: Any, gpu: int | None = None) -> float | None:
    """Return the clock during a pass in MHz, or None where the device does not report it.

    It is the median of the GPU's clock over the samples, where the worker read it with each of them; else the clock
    of the GPU right after the pass; else that of the fastest CPU right after it.

    Args:
        telemetry: of one pass.
        gpu: NVML's index of the GPU that the network ran on; None for a network on the CPU.
    """
    sampled = [number({"mhz": value}, "mhz") for value in _listed(telemetry, "sm_mhz")]
    known = [clock for clock in sampled if clock is not None]
    if known:
        return median(known)
    after = _at(telemetry, ("after",))
    if gpu is not None:
        gpus = _listed(after, "gpu")
        return number(gpus[gpu], "sm_mhz") if 0 <= gpu < len(gpus) else None
    return max(cpu_clocks_mhz(after), default=None)


def clock_limit_mhz(telemetry: Any) -> float | None:
    """Return the highest clock in MHz that any CPU might have right after a pass (heat lowers it), or None."""
    return max(cpu_clocks_mhz(_at(telemetry, ("after",)), "clock_limit_mhz"), default=None)


def throttle_state(state: Any, machine: str | None = None) -> ThrottleState | None:
    """Return how the device says that its clock is held back, or None where it says nothing.

    Args:
        machine: what `uname -m` prints there. A Raspberry Pi reports bits, an x86 machine a count of events. Without
            it, a value is taken for bits where it can be one: what holds now has always also held since boot.
    """
    value = _at(state, ("throttled",))
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    if machine is None:
        is_bits = bool(value & _PI_SINCE_BOOT) and not value & ~(_PI_NOW | _PI_SINCE_BOOT)
    else:
        is_bits = machine.startswith(("aarch64", "arm"))
    if not is_bits:
        return ThrottleState(value, (), ())
    return ThrottleState(
        value,
        tuple(reason for bit, reason in PI_REASONS.items() if value & bit),
        tuple(reason for bit, reason in PI_REASONS.items() if value & bit << 16),
    )


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _listed(state: Any, name: str) -> list[Any]:
    found = _at(state, (name,))
    return found if isinstance(found, list) else []
