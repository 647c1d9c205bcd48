"""Preconditions of a pass: the temperature, governor and clock that the inventory demands of a device.

latlab sets none of these, because that needs root: it waits, warns, or refuses to measure. It decides by what the
device reports. A condition that the device does not report counts as met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from latlab.harness.devices.health_checks import Finding
from latlab.harness.telemetry.readings import cpu_clocks_mhz, hottest_c, temperatures_c, text
from latlab.harness.transports import DeviceConfig

__all__ = ["Decision", "Preconditions"]

FIRST_CHECK_S, LAST_CHECK_S = 1.0, 5.0
"""Seconds between two looks at a device that cools down: at first, and when it takes long."""


class Decision(NamedTuple):
    """The decision before a pass: go ahead, wait, or refuse."""

    wait_s: float = 0.0
    """Seconds to rest the device before the next look; 0 to go ahead."""
    unmet: str = ""
    """The demands that are not met, in words; empty if all are."""
    refused: bool = False
    """Whether the inventory forbids to measure as long as they are not met."""


class Preconditions:
    """The demands of the inventory on a device.

    Args:
        config: the device's entry in the inventory.
        hello: the worker's reply to `hello`.
        cpus: the CPUs that time networks; None for all.
    """

    def __init__(self, config: DeviceConfig, hello: Mapping[str, Any], cpus: Sequence[int] | None = None) -> None:
        self._cooldown, self._clock, self._cpus = config.cooldown, config.clock, cpus
        self._max_mhz = cpu_clocks_mhz(hello.get("cpus"), "max_mhz")

    @property
    def demands(self) -> bool:
        """True if the inventory demands anything."""
        return self._cooldown is not None or self._clock is not None

    def before_pass(self, telemetry: Mapping[str, Any], waited_s: float, *, ran: bool) -> Decision:
        """Decide what to do before the next pass.

        Args:
            telemetry: the device's last reading.
            waited_s: seconds that the device has rested since the last pass, because of earlier decisions.
            ran: whether the telemetry was read right after a pass: only then do the clocks show how fast it ran.
        """
        checks = (
            self._check_pause(waited_s),
            self._check_temperature(telemetry, waited_s),
            self._check_clock(telemetry, waited_s, ran=ran),
        )
        found = [check for check in checks if check is not None]
        return Decision(
            max((check.wait_s for check in found), default=0.0),
            "; ".join(check.unmet for check in found if check.unmet),
            any(check.refused for check in found),
        )

    def _check_pause(self, waited_s: float) -> Decision | None:
        if self._cooldown is None or waited_s >= self._cooldown.pause_s:
            return None
        return Decision(self._cooldown.pause_s - waited_s)

    def _check_temperature(self, telemetry: Mapping[str, Any], waited_s: float) -> Decision | None:
        demand = self._cooldown
        if demand is None or demand.below_c is None:
            return None
        celsius = hottest_c(telemetry, demand.zone)
        if celsius is None or celsius < demand.below_c:
            return None
        after = f" after {waited_s:.0f} s of rest" if waited_s else ""
        unmet = f"it is at {celsius:.0f} °C{after}, not below {demand.below_c:g} °C"
        return Decision(_next_check_s(waited_s, demand.most_s), unmet)

    def _check_clock(self, telemetry: Mapping[str, Any], waited_s: float, *, ran: bool) -> Decision | None:
        demand = self._clock
        if demand is None:
            return None
        unmet = _wrong_governor(telemetry, demand.governor)
        wait_s = 0.0
        percent = self._clock_percent(telemetry, ran=ran)
        if demand.min_percent is not None and percent is not None and percent < demand.min_percent:
            slow = f"its clock is at {percent:.0f} % of its highest, not at {demand.min_percent:g} %"
            unmet = f"{unmet}; {slow}" if unmet else slow
            wait_s = _next_check_s(waited_s, demand.most_s) if demand.otherwise == "wait" else 0.0
        return Decision(wait_s, unmet, demand.otherwise == "refuse") if unmet else None

    def _clock_percent(self, telemetry: Mapping[str, Any], *, ran: bool) -> float | None:
        """Return the percentage of their highest clock that the CPUs may use (thermal limits lower it), or used right
        after a pass; None if it is not known."""
        most = self._fastest_timing_cpu(self._max_mhz)
        if not most:
            return None
        shares = [self._fastest_timing_cpu(cpu_clocks_mhz(telemetry, "clock_limit_mhz"))]
        if ran:
            shares.append(self._fastest_timing_cpu(cpu_clocks_mhz(telemetry, "frequency_mhz")))
        known = [share for share in shares if share is not None]
        return 100 * min(known) / most if known else None

    def _fastest_timing_cpu(self, clocks: Sequence[float]) -> float | None:
        """Return the highest clock of the CPUs that time networks, or of all CPUs if those are not in the list."""
        chosen = [clocks[cpu] for cpu in self._cpus or () if cpu < len(clocks)]
        return max(chosen or clocks, default=None)

    # Findings of the doctor

    def findings(self, telemetry: Mapping[str, Any]) -> Iterator[Finding]:
        """Yield a finding on each demand: whether it is met, and whether the device reports it at all."""
        if self._cooldown is not None and self._cooldown.below_c is not None:
            yield self._cooldown_finding(self._cooldown.below_c, self._cooldown.zone, self._cooldown.most_s, telemetry)
        if self._clock is not None and self._clock.governor is not None:
            yield self._governor_finding(self._clock.governor, telemetry)
        if self._clock is not None and self._clock.min_percent is not None:
            yield self._clock_finding(self._clock.min_percent, telemetry)

    def _governor_finding(self, demanded: str, telemetry: Mapping[str, Any]) -> Finding:
        wrong = _wrong_governor(telemetry, demanded)
        if not _governors(telemetry):
            advice = "`governor` has no effect here: take it out of the inventory."
            return Finding("demanded governor", "warning", "the device does not report its governor", advice)
        if not wrong:
            return Finding("demanded governor", "ok", demanded)
        refuses = self._clock is not None and self._clock.otherwise == "refuse"
        advice = f"There, as root, which latlab is not: cpupower frequency-set -g {demanded}"
        return Finding("demanded governor", "failed" if refuses else "warning", wrong, advice)

    def _clock_finding(self, min_percent: float, telemetry: Mapping[str, Any]) -> Finding:
        percent = self._clock_percent(telemetry, ran=False)
        if percent is None:
            advice = "`min_percent` has no effect here: take it out of the inventory."
            return Finding("demanded clock", "warning", "the device does not report how fast its CPUs may run", advice)
        found = f"the CPUs may have {percent:.0f} % of their highest clock; {min_percent:g} % is demanded"
        if percent >= min_percent:
            return Finding("demanded clock", "ok", found)
        advice = "Too hot, or limited by hand. There, as root: cpupower frequency-set -u 100GHz"
        return Finding("demanded clock", "warning", found, advice)

    @staticmethod
    def _cooldown_finding(below_c: float, zone: str | None, most_s: float, telemetry: Mapping[str, Any]) -> Finding:
        celsius = hottest_c(telemetry, zone)
        if celsius is None:
            known = ", ".join(sorted(temperatures_c(telemetry))[:20])
            advice = f"In the inventory, choose `zone` from: {known}" if known else "`below_c` has no effect here."
            return Finding("cool-down", "warning", f"the device does not report {zone or 'its temperature'}", advice)
        if celsius < below_c:
            return Finding("cool-down", "ok", f"{celsius:.0f} °C, below the {below_c:g} °C demanded")
        found = f"{celsius:.0f} °C at rest, {below_c:g} °C demanded"
        return Finding(
            "cool-down", "warning", found, f"Each pass will wait up to {most_s:g} s for it: demand less, or cool it."
        )


def _next_check_s(waited_s: float, most_s: float) -> float:
    """Return the seconds until the next look at a device that cools down; 0 if it has had `most_s` seconds."""
    return max(0.0, min(max(FIRST_CHECK_S, min(LAST_CHECK_S, waited_s / 4)), most_s - waited_s))


def _wrong_governor(telemetry: Mapping[str, Any], demanded: str | None) -> str:
    """Return in words how the governor differs from the demanded one; empty if it does not, or is not known."""
    found = _governors(telemetry)
    if demanded is None or not found or found == {demanded}:
        return ""
    return f"its governor is {', '.join(sorted(found))}, not {demanded}"


def _governors(telemetry: Mapping[str, Any]) -> set[str]:
    found = (text({"one": one}, "one") for one in _list(telemetry.get("governor"))[:64])
    return {name for name in found if name}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
