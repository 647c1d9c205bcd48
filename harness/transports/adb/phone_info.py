"""Facts and telemetry of a phone without Python, each in one round trip through its shell.

No root is needed. What the phone does not show is missing, as it is in the worker's own telemetry, which reads the same
files through the same classes.
"""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase
from typing import Any

from latlab.agents.system import telemetry
from latlab.agents.system.energy import Energy
from latlab.agents.system.sensor_files import Files, Knob, by_number
from latlab.harness.text import printable

__all__ = ["FACTS", "TELEMETRY", "DumpedFiles", "describe", "read_telemetry"]

_PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "soc": "ro.soc.model",
    "abi": "ro.product.cpu.abi",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "build": "ro.build.fingerprint",
}
_CPUS = "/sys/devices/system/cpu"
# One grep for all files, because starting a program takes milliseconds on a phone. Each line comes as PATH:LINE.
FACTS = f"""
for name in {" ".join(_PROPERTIES.values())}; do echo "$name:$(getprop $name 2>/dev/null)"; done
echo "kernel:$(uname -r)"; echo "machine:$(uname -m)"; echo "taskset:$(command -v taskset)"
grep -sH '' /proc/cpuinfo {_CPUS}/present {_CPUS}/cpu[0-9]*/cpufreq/scaling_governor \
{_CPUS}/cpu[0-9]*/cpufreq/cpuinfo_max_freq
grep -sH '^MemTotal' /proc/meminfo
grep -sH '^Cpus_allowed_list' /proc/self/status
true
"""
TELEMETRY = f"""
grep -sH '' /sys/class/thermal/thermal_zone[0-9]*/type /sys/class/thermal/thermal_zone[0-9]*/temp \
{_CPUS}/cpu[0-9]*/cpufreq/scaling_cur_freq {_CPUS}/cpu[0-9]*/cpufreq/scaling_max_freq \
{_CPUS}/cpu[0-9]*/cpufreq/scaling_governor /proc/loadavg \
/proc/pressure/cpu /sys/class/power_supply/battery/capacity /sys/class/power_supply/battery/status \
/sys/class/power_supply/battery/temp /sys/class/power_supply/battery/current_now \
/sys/class/power_supply/battery/voltage_now
grep -sH '^MemAvailable' /proc/meminfo
grep -sH '^cpu ' /proc/stat
true
"""
_SENSORS = (
    telemetry.Temperature,
    telemetry.Frequency,
    telemetry.ClockLimit,
    telemetry.Governor,
    telemetry.Load,
    telemetry.CPUTime,
    telemetry.Pressure,
    telemetry.Battery,
    Energy,
)
_MAX_LINE = 200
_MAX_CPUS = 1024


class DumpedFiles(Files):
    """The files that `grep -H ''` printed, with each line cut to a bounded length.

    Args:
        dump: the output of grep.
    """

    def __init__(self, dump: bytes) -> None:
        super().__init__("")
        self._lines: dict[str, list[str]] = {}
        for line in dump.decode("utf-8", "replace").split("\n"):
            path, found, content = line.partition(":")
            if found:
                self._lines.setdefault(path.lstrip("/"), []).append(printable(content[:_MAX_LINE]))

    def find(self, pattern: str) -> list[str]:
        names = {"/".join(parts[:depth]) for parts in map(_parts, self._lines) for depth in range(1, len(parts) + 1)}
        depth = pattern.count("/")
        found = [name for name in names if name.count("/") == depth and fnmatchcase(name, pattern)]
        return sorted(found, key=by_number)

    def text(self, path: str) -> str | None:
        lines = self._lines.get(path.lstrip("/"))
        return None if lines is None else "\n".join(lines).strip()


def read_telemetry(dump: bytes) -> dict[str, Any]:
    """Return telemetry from the output of `TELEMETRY`, with the worker's names and units."""
    files = DumpedFiles(dump)
    values: dict[str, Any] = {sensor.name: _read(sensor, files) for sensor in _SENSORS}
    memory = (files.text("proc/meminfo") or "").split()
    kib = int(memory[1]) if len(memory) > 1 and memory[1].isdecimal() and len(memory[1]) < 16 else None
    values["memory_mb"] = None if kib is None else {"available": kib / 1024}
    return values


def describe(dump: bytes, runtime: dict[str, str | None]) -> dict[str, Any]:
    """Return the fields of a `hello` from the output of `FACTS`.

    Args:
        dump: that output.
        runtime: version and build of `benchmark_model`.
    """
    files = DumpedFiles(dump)
    properties = {key: (files.text(name) or "")[:100] or None for key, name in _PROPERTIES.items()}
    usable = _cpu_list((files.text("proc/self/status") or "").rpartition(":")[2])
    count = len(_cpu_list(files.text("sys/devices/system/cpu/present") or "")) or len(usable) or None
    cpu = _cpu_model(files, properties["soc"])
    governor = _read(telemetry.Governor, files)
    fingerprint: dict[str, Any] = {
        "os": f"Android {properties['android'] or '?'} (SDK {properties['sdk'] or '?'})",
        "device": " ".join(filter(None, (properties["manufacturer"], properties["model"]))) or None,
        "build": properties["build"],
        "kernel": files.text("kernel"),
        "machine": files.text("machine"),
        "abi": properties["abi"],
        "cpu": cpu,
        "cpu_count": count,
        "governor": governor,
        "runtimes": {"benchmark_model": runtime},
    }
    fingerprint["id"] = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]
    memory = (files.text("proc/meminfo") or "").split()
    return {
        "platform": "android",
        "machine": (files.text("machine") or "")[:64],
        "libc": "bionic",
        # Without taskset a program cannot be pinned to CPUs, so there is nothing to choose from.
        "cpus": {
            "count": count,
            "model": cpu,
            "governor": governor,
            "max_mhz": _read(telemetry.HighestClock, files),
            "affinity": usable if usable and files.text("taskset") else None,
        },
        "memory_bytes": int(memory[1]) << 10 if len(memory) > 1 and memory[1].isdecimal() else None,
        "clock_resolution_ns": 1000,  # benchmark_model's
        "fingerprint": fingerprint,
    }


def _read(sensor: type[Knob], files: Files) -> Any:
    value = sensor(files).read()
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:  # a file that holds "nan"
        return None
    return value


def _parts(path: str) -> list[str]:
    return path.split("/")


def _cpu_list(text: str) -> list[int]:
    """Return the numbers in a list of CPUs such as "0-3,6"."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal() and len(first) < 6 and len(last) < 6:
            cpus.update(range(int(first), min(int(last or first) + 1, _MAX_CPUS)))
    return sorted(cpus)


def _cpu_model(files: Files, soc: str | None) -> str | None:
    """Return the chip's name with the kinds of its cores, or what is known of these; None if nothing is."""
    lines = [line.partition(":") for line in (files.text("proc/cpuinfo") or "").split("\n")]
    fields = [(key.strip(), value.strip()) for key, _, value in lines]
    named = soc or next((value for key, value in fields if key in ("Hardware", "model name") and value), None)
    parts = [value for key, value in fields if key == "CPU part"]
    cores = ", ".join(f"{parts.count(part)} x {part}" for part in sorted(set(parts)))
    return f"{named} ({cores})" if named and cores else named or cores or None
