"""The state of the device around a measurement, read from Linux's files. Each of these may be missing.

Each sensor is one small class, as in pyperf's `system`: `read` returns a JSON value, or None if the device does not
report it. Reading all of them takes well under a millisecond. Only the names of files are cached.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from latlab.agents.system.energy import Energy
from latlab.agents.system.sensor_files import Files, Knob, gpus, parse

__all__ = ["KNOBS", "Telemetry"]

_CPUS = "sys/devices/system/cpu/cpu[0-9]*"


class Temperature(Knob):
    """The temperature of each thermal zone in degrees Celsius, under the zone's type."""

    name = "temperature_c"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        zones = self._device.find("sys/class/thermal/thermal_zone[0-9]*")
        self._zones = [(self._device.text(f"{zone}/type") or os.path.basename(zone), f"{zone}/temp") for zone in zones]

    def read(self) -> dict[str, float] | None:
        values: dict[str, float] = {}
        for name, path in self._zones:
            milli = self._device.number(path)
            if milli is not None:
                values[name if name not in values else f"{name} ({path.split('/')[-2]})"] = milli / 1000
        return values or None


class Frequency(Knob):
    """The clock of each CPU in MHz, from cpufreq, else from /proc/cpuinfo."""

    name = "frequency_mhz"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._files = self._device.find(f"{_CPUS}/cpufreq/scaling_cur_freq")

    def read(self) -> list[float] | None:
        if self._files:
            return _clocks(self._device, self._files)
        lines = (self._device.text("proc/cpuinfo") or "").splitlines()
        found = [parse(line.rpartition(":")[2], float) for line in lines if line.startswith("cpu MHz")]
        return [clock for clock in found if clock is not None] or None


class HighestClock(Knob):
    """The highest clock of each CPU in MHz, by its design. It is not among `KNOBS`, because it does not change."""

    name = "max_mhz"

    def read(self) -> list[float] | None:
        return _clocks(self._device, self._device.find(f"{_CPUS}/cpufreq/cpuinfo_max_freq"))


class ClockLimit(Knob):
    """The highest clock in MHz that each CPU may run at now. A thermal limit or a person can lower it."""

    name = "clock_limit_mhz"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._files = self._device.find(f"{_CPUS}/cpufreq/scaling_max_freq")

    def read(self) -> list[float] | None:
        return _clocks(self._device, self._files)


class Governor(Knob):
    """The frequency governors in use, e.g. ["performance"]."""

    name = "governor"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._files = self._device.find(f"{_CPUS}/cpufreq/scaling_governor")

    def read(self) -> list[str] | None:
        return sorted({text for text in map(self._device.text, self._files) if text}) or None


class Throttle(Knob):
    """The number of times that the CPUs were throttled since boot (Intel), or the Raspberry Pi's throttling bits."""

    name = "throttled"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._counters = self._device.find(f"{_CPUS}/thermal_throttle/core_throttle_count")
        self._firmware = "sys/devices/platform/soc/soc:firmware/get_throttled"

    def read(self) -> int | None:
        counts = [self._device.number(path) for path in self._counters]
        known = [count for count in counts if count is not None]
        if known:
            return sum(known)
        return parse(self._device.text(self._firmware), lambda text: int(text, 16))


class Load(Knob):
    """The load averages over 1, 5 and 15 minutes."""

    name = "load"

    def read(self) -> list[float] | None:
        words = (self._device.text("proc/loadavg") or "").split()[:3]
        values = [parse(word, float) for word in words]
        return [value for value in values if value is not None] or None


class CPUTime(Knob):
    """CPU ticks since boot, summed over all CPUs: busy, idle, or stolen by the hypervisor for another guest."""

    name = "cpu_ticks"

    def read(self) -> dict[str, int] | None:
        words = (self._device.text("proc/stat") or "").split("\n", 1)[0].split()[1:9]
        ticks = [parse(word, int) for word in words]
        if len(ticks) < 8 or None in ticks:
            return None
        user, nice, system, idle, iowait, irq, softirq, steal = (tick or 0 for tick in ticks)
        return {"busy": user + nice + system + irq + softirq, "idle": idle + iowait, "steal": steal}


class Memory(Knob):
    """Memory in MiB: what is available on the device, and this process's peak since `PeakMemory` last reset it."""

    name = "memory_mb"

    def read(self) -> dict[str, float]:
        values = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        for line in (self._device.text("proc/meminfo") or "").splitlines():
            if line.startswith("MemAvailable:"):
                kib = parse(line.split()[1], int)
                if kib is not None:
                    values["available"] = kib / 1024
        return values


class Pressure(Knob):
    """Microseconds since boot during which some task waited for a CPU (Linux's pressure stall information)."""

    name = "pressure_us"

    def read(self) -> int | None:
        first = (self._device.text("proc/pressure/cpu") or "").split("\n", 1)[0]
        return parse(first.rpartition("total=")[2], int)


class Battery(Knob):
    """A phone's battery: its charge in percent, its charging status, and its temperature in degrees Celsius."""

    name = "battery"

    def read(self) -> dict[str, float | str] | None:
        folder = "sys/class/power_supply/battery"
        values: dict[str, float | str] = {}
        percent = self._device.number(f"{folder}/capacity")
        if percent is not None:
            values["percent"] = percent
        status = self._device.text(f"{folder}/status")
        if status:
            values["status"] = status[:40]
        tenths = self._device.number(f"{folder}/temp")
        if tenths is not None:
            values["temperature_c"] = tenths / 10
        return values or None


class Preemption(Knob):
    """The number of times that the system took this process off its CPU (involuntary context switches)."""

    name = "preemptions"

    def read(self) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class GPUs(Knob):
    """Clock, temperature, power, memory and number of processes of each NVIDIA GPU; see `nvml.GPU.state`."""

    name = "gpu"

    def read(self) -> list[dict[str, Any]] | None:
        # NVML belongs to the running system, and only that system's files begin at "/".
        return [gpu.state() for gpu in gpus()] or None if self._device.root == "/" else None


KNOBS: tuple[type[Knob], ...] = (
    Temperature,
    Frequency,
    ClockLimit,
    Governor,
    Throttle,
    Load,
    CPUTime,
    Memory,
    Pressure,
    Battery,
    Preemption,
    GPUs,
    Energy,  # last, so that the energy of reading the other sensors does not count as the network's
)
"""The sensors that `Telemetry` reads, in this order."""


def _clocks(files: Files, paths: list[str]) -> list[float] | None:
    """Return the clocks in MHz, read from files in kHz."""
    clocks = [files.number(path) for path in paths]
    return [clock / 1000 for clock in clocks if clock is not None] or None


class Telemetry:
    """All sensors of one device.

    Args:
        root: path at which the device's file system begins.
    """

    def __init__(self, root: str = "/") -> None:
        files = Files(root)
        self._knobs = [knob(files) for knob in KNOBS]

    def read(self) -> dict[str, Any]:
        """Read every sensor and return the values by name; None for what the device does not report."""
        return {knob.name: knob.read() for knob in self._knobs}
