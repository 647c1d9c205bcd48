"""Whether a device is as its inventory entry demands before a pass: cool enough, with the governor and clock asked for.

latlab sets none of that, which needs root: it waits, warns, or refuses. What it decides by is what the device tells;
what it does not tell is taken for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from latlab.harness.devices.health_checks import Finding
from latlab.harness.telemetry.readings import cpu_clocks_mhz, hottest_c, temperatures_c, text
from latlab.harness.transports import DeviceConfig

__all__ = ["Decision", "Preconditions"]

FIRST_CHECK_S, LAST_CHECK_S = 1.0, 5.0
"""A device that cools down is looked at so often; at first, and when it takes long."""


class Decision(NamedTuple):
    """What to do before a pass."""

    wait_s: float = 0.0
    """Rest the device for so long, and look again; 0: go ahead."""
    unmet: str = ""
    """What is not as demanded, in words."""
    refused: bool = False
    """Nothing is to be timed as long as that is so."""


class Preconditions:
    """What the inventory demands of a device.

    Args:
        hello: what the device has told of itself.
        cpus: that time networks; None for all.
    """

    def __init__(self, config: DeviceConfig, hello: Mapping[str, Any], cpus: Sequence[int] | None = None) -> None:
        self._cooldown, self._clock, self._cpus = config.cooldown, config.clock, cpus
        self._max_mhz = cpu_clocks_mhz(hello.get("cpus"), "max_mhz")

    @property
    def demands(self) -> bool:
        """Whether there is anything to look at."""
        return self._cooldown is not None or self._clock is not None

    def before_pass(self, telemetry: Mapping[str, Any], waited_s: float, *, ran: bool) -> Decision:
        """What to do, by the last telemetry.

        Args:
            waited_s: that the device has been at rest for since the last pass, because of an earlier answer.
            ran: whether the telemetry was read right after a pass: only then do clocks tell how fast it would run.
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
        """How much of their highest clock the CPUs may use (thermal limits lower that), or used right after a pass."""
        most = self._fastest_timing_cpu(self._max_mhz)
        if not most:
            return None
        shares = [self._fastest_timing_cpu(cpu_clocks_mhz(telemetry, "clock_limit_mhz"))]
        if ran:
            shares.append(self._fastest_timing_cpu(cpu_clocks_mhz(telemetry, "frequency_mhz")))
        known = [share for share in shares if share is not None]
        return 100 * min(known) / most if known else None

    def _fastest_timing_cpu(self, clocks: Sequence[float]) -> float | None:
        """The fastest of the CPUs that time networks; of all, where the list has not one clock for each."""
        chosen = [clocks[cpu] for cpu in self._cpus or () if cpu < len(clocks)]
        return max(chosen or clocks, default=None)

    # Before anything is timed

    def findings(self, telemetry: Mapping[str, Any]) -> Iterator[Finding]:
        """Lines for a person, of what is demanded and not so, or cannot be seen."""
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
            return Finding("demanded governor", "warning", "the device does not tell its governor", advice)
        if not wrong:
            return Finding("demanded governor", "ok", demanded)
        refuses = self._clock is not None and self._clock.otherwise == "refuse"
        advice = f"There, as root, which latlab is not: cpupower frequency-set -g {demanded}"
        return Finding("demanded governor", "failed" if refuses else "warning", wrong, advice)

    def _clock_finding(self, min_percent: float, telemetry: Mapping[str, Any]) -> Finding:
        percent = self._clock_percent(telemetry, ran=False)
        if percent is None:
            advice = "`min_percent` has no effect here: take it out of the inventory."
            return Finding("demanded clock", "warning", "the device does not tell how fast its CPUs may run", advice)
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
            return Finding("cool-down", "warning", f"the device does not tell {zone or 'its temperature'}", advice)
        if celsius < below_c:
            return Finding("cool-down", "ok", f"{celsius:.0f} °C, below the {below_c:g} °C demanded")
        found = f"{celsius:.0f} °C at rest, {below_c:g} °C demanded"
        return Finding(
            "cool-down", "warning", found, f"Each pass will wait up to {most_s:g} s for it: demand less, or cool it."
        )


def _next_check_s(waited_s: float, most_s: float) -> float:
    """Seconds until the next look at a device that cools down; 0 where it has had its time."""
    return max(0.0, min(max(FIRST_CHECK_S, min(LAST_CHECK_S, waited_s / 4)), most_s - waited_s))


def _wrong_governor(telemetry: Mapping[str, Any], demanded: str | None) -> str:
    """What is wrong, in words; "" for nothing."""
    found = _governors(telemetry)
    if demanded is None or not found or found == {demanded}:
        return ""
    return f"its governor is {', '.join(sorted(found))}, not {demanded}"


def _governors(telemetry: Mapping[str, Any]) -> set[str]:
    found = (text({"one": one}, "one") for one in _list(telemetry.get("governor"))[:64])
    return {name for name in found if name}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
