"""Checks of what a worker reports about its device: each gives a finding, with advice if something is wrong.

All of the input comes from the device, and may be missing or nonsense. A value that cannot be understood gives no
finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from latlab.harness.telemetry.readings import hottest_sensor, number, text, throttle_state
from latlab.harness.text import printable

__all__ = ["Clocks", "Finding", "State", "compare_clocks", "conditions", "facts", "step_details"]

State = Literal["ok", "warning", "failed"]

GIB = 2**30
FULL_GB, LOW_GB = 0.05, 1.0
"""Gigabytes free on the device's disk: below the first hardly a network fits, below the second not many do."""
LOW_MEMORY_MB = 256
"""MiB of available memory below which there is a warning."""
COARSE_CLOCK_NS = 10_000
"""Resolution of the steady clock, in ns, above which there is a warning."""
WRONG_CLOCK_S = 60.0
"""Seconds that the wall clock may be wrong. Certificates, logs and people rely on it; latencies do not."""
CLOCK_SLACK = 0.02
"""Share by which the device's steady clock may run faster or slower than the controller's."""
HOT_C = 75.0
"""Degrees Celsius from which there is a warning."""
CHANGING_GOVERNORS = {"powersave", "ondemand", "conservative", "schedutil", "interactive", "userspace", "walt"}
"""Frequency governors that change the clock while a network is timed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: what was checked, how it is, what was seen, and what to do about it."""

    check: str
    state: State
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the fields."""
        return asdict(self)


class Clocks(NamedTuple):
    """A reading of the device's clocks, and of the controller's just before and just after, all in seconds."""

    wall_s: float
    """The device's time since the epoch."""
    steady_s: float
    """The device's steady clock, which times networks."""
    before_s: float
    """The controller's steady clock before the request."""
    after_s: float
    """The controller's steady clock after the reply."""
    own_wall_s: float
    """The controller's time since the epoch, after the reply."""

    @classmethod
    def read(cls, telemetry: Mapping[str, Any], before_s: float, after_s: float, own_wall_s: float) -> Clocks | None:
        """Return the reading in a worker's telemetry, or None if the worker reports no clocks."""
        wall_s, steady_s = (number(telemetry, "clocks", name) for name in ("wall_s", "steady_s"))
        if wall_s is None or steady_s is None:
            return None
        return cls(wall_s, steady_s, before_s, after_s, own_wall_s)


def facts(hello: Mapping[str, Any], *, on_this_machine: bool) -> Iterator[Finding]:
    """Yield findings from a worker's `hello`: disk, CPUs, memory, governor, clock and GPUs."""
    free, total = number(hello, "work", "free_bytes"), number(hello, "work", "total_bytes")
    if free is not None:
        folder = text(hello, "work", "folder") or "its work folder"
        room = f"{_bytes(free)} free" + (f" of {_bytes(total)}" if total else "")
        state: State = "failed" if free / 1e9 < FULL_GB else "warning" if free / 1e9 < LOW_GB else "ok"
        advice = f"Free some space where {folder} is, or name another folder with `work` in the inventory."
        yield Finding("disk", state, room, "" if state == "ok" else advice)
    count = number(hello, "cpus", "count")
    usable = _usable(hello)
    if count is not None:
        model = text(hello, "cpus", "model") or "unknown"
        yield Finding("processor", "ok", f"{model}: {usable} of {count:.0f} CPUs usable")
    if usable < 2:
        why = "Exporting pauses while networks are timed." if on_this_machine else "Any other program there disturbs."
        yield Finding("free cores", "warning", "none besides the one that times networks", why)
    memory = number(hello, "memory_bytes")
    if memory:
        yield Finding("memory", "ok", f"{memory / GIB:.1f} GiB")
    yield from _governor(hello)
    yield from _resolution(hello)
    gpus = hello.get("gpus")
    for place, gpu in enumerate(gpus[:64] if isinstance(gpus, list) else ()):
        words = [text(gpu, key) for key in ("name", "driver", "cuda")] if isinstance(gpu, dict) else []
        yield Finding(f"GPU {place}", "ok", ", ".join(word for word in words if word) or "unknown")


def step_details(hello: Mapping[str, Any]) -> dict[str, str]:
    """Return details, from a worker's `hello`, about the steps "Python" and "work folder" of `Transport.STEPS`."""
    words = [f"Python {text(hello, 'python')}"] if text(hello, "python") else []
    words += [word for word in (text(hello, "fingerprint", "os"), text(hello, "machine"), text(hello, "libc")) if word]
    return {"Python": ", ".join(words), "work folder": text(hello, "work", "folder") or ""}


def conditions(telemetry: Mapping[str, Any], hello: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings from a worker's `telemetry` about what may disturb timing at this moment."""
    available = number(telemetry, "memory_mb", "available")
    if available is not None and available < LOW_MEMORY_MB:
        yield Finding(
            "free memory", "warning", f"{available:.0f} MB", "Large networks may not fit: end other programs."
        )
    yield from _temperature(telemetry)
    yield from _throttling(telemetry, hello)
    load = telemetry.get("load")
    now = number({"load": load[0]}, "load") if isinstance(load, list) and load else None
    if now is not None and not hello.get("simulated"):
        busy = now > max(1.0, 0.5 * _usable(hello))
        advice = "Other programs use the device: end them, or expect wide error bars." if busy else ""
        yield Finding("load", "warning" if busy else "ok", f"{now:.1f} on {_usable(hello)} CPUs", advice)
    yield from _energy(telemetry)
    gpus = telemetry.get("gpu")
    for place, gpu in enumerate(gpus[:64] if isinstance(gpus, list) else ()):
        others = number(gpu, "processes") if isinstance(gpu, dict) else None
        if others:
            yield Finding(
                f"GPU {place} in use", "warning", f"{others:.0f} processes compute on it", "End them, or wait for them."
            )


def compare_clocks(first: Clocks, last: Clocks) -> Iterator[Finding]:
    """Yield findings on two readings: does the steady clock run as fast as ours, and is the wall clock right?"""
    passed = last.steady_s - first.steady_s
    least, most = last.before_s - first.after_s, last.after_s - first.before_s
    if not (1 - CLOCK_SLACK) * least <= passed <= (1 + CLOCK_SLACK) * most or passed <= 0:
        yield Finding(
            "steady clock",
            "failed",
            f"{passed:.3f} s passed there in {least:.3f} to {most:.3f} s here",
            "Latencies would be wrong by as much. Is it a virtual machine that was suspended, or a faked clock?",
        )
    else:
        yield Finding("steady clock", "ok", f"{passed:.1f} s passed there while {(least + most) / 2:.1f} s did here")
    ahead_s = last.wall_s - last.own_wall_s
    if abs(ahead_s) > WRONG_CLOCK_S:
        yield Finding(
            "wall clock",
            "warning",
            f"{_duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} this machine's",
            "Latencies are right all the same. Set it there, as root: timedatectl set-ntp true",
        )


def _usable(hello: Mapping[str, Any]) -> int:
    cpus = hello.get("cpus")
    affinity = cpus.get("affinity") if isinstance(cpus, dict) else None
    return len(affinity) if isinstance(affinity, list) and affinity else int(number(hello, "cpus", "count") or 1)


def _governor(hello: Mapping[str, Any]) -> Iterator[Finding]:
    cpus = hello.get("cpus")
    governors = cpus.get("governor") if isinstance(cpus, dict) else None
    names = [text(one) for one in (governors if isinstance(governors, list) else [governors])[:16]]
    found = sorted({name for name in names if name})
    if set(found) & CHANGING_GOVERNORS:
        advice = (
            "Clocks will move. There, as root: cpupower frequency-set -g performance (a phone has to be taken as it is)"
        )
        yield Finding("governor", "warning", ", ".join(found), advice)
    elif found:
        yield Finding("governor", "ok", ", ".join(found))


def _resolution(hello: Mapping[str, Any]) -> Iterator[Finding]:
    resolution = number(hello, "clock_resolution_ns")
    if resolution is None:
        return
    coarse = resolution > COARSE_CLOCK_NS
    advice = "Short networks will be badly resolved: time larger ones, or larger batches." if coarse else ""
    yield Finding("clock", "warning" if coarse else "ok", f"resolution {resolution:.0f} ns", advice)


def _temperature(telemetry: Mapping[str, Any]) -> Iterator[Finding]:
    hottest = hottest_sensor(telemetry)
    if hottest is None:
        return
    sensor, celsius = hottest
    hot = celsius >= HOT_C
    advice = "Let it cool down, or give it a fan: hot devices slow down." if hot else ""
    found = f"{celsius:.0f} °C ({printable(sensor)[:40]})"
    yield Finding("temperature", "warning" if hot else "ok", found, advice)


def _throttling(telemetry: Mapping[str, Any], hello: Mapping[str, Any]) -> Iterator[Finding]:
    machine = str(hello.get("machine"))
    state = throttle_state(telemetry, machine)
    if state is None:
        return
    if not machine.startswith(("aarch64", "arm")):  # then the value is a count of events since boot
        found = f"{state.value} times since boot" if state.value else "never since boot"
        yield Finding("throttling", "ok", found)
    elif state.now:
        weak = "too little voltage" in state.now
        advice = "Use the power supply made for it." if weak else "Let it cool down, or give it a fan."
        yield Finding("throttling", "warning", f"now: {', '.join(state.now)}", advice)
    elif state.since_boot:
        yield Finding(
            "throttling",
            "warning",
            f"since boot: {', '.join(state.since_boot)}",
            "Check its power supply and its cooling.",
        )
    else:
        yield Finding("throttling", "ok", "never since boot")


def _energy(telemetry: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding on how the device's energy can be measured, unless it has no meter."""
    energy = telemetry.get("energy")
    if not isinstance(energy, dict):
        return
    kinds = [kind for kind in (energy.get("uj"), energy.get("mw")) if isinstance(kind, dict)]
    names = dict.fromkeys(printable(str(name))[:40] for kind in kinds for name in list(kind)[:64])
    if names:
        yield Finding("energy", "ok", f"measured by {', '.join(names)}")
    elif energy.get("refused"):
        found = "the processor counts it, for root's eyes only; chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        yield Finding("energy", "ok", f"{found} opens that until the next boot")


def _bytes(value: float) -> str:
    return (
        f"{value / 1e9:.0f} GB"
        if value >= 10e9
        else f"{value / 1e9:.1f} GB"
        if value >= 1e9
        else f"{value / 1e6:.0f} MB"
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
