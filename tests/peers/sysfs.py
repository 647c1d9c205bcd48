"""The files under /sys of a small device's kernel, as plain files that tests may change at any time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def make_sys(root: Path, zones: Mapping[str, float], clock_mhz: int, governor: str) -> None:
    """Writes thermal zones (type -> degrees Celsius) and, for as many CPUs as there really are, their clocks."""
    for number, (kind, celsius) in enumerate(zones.items()):
        write(root, f"class/thermal/thermal_zone{number}/type", kind)
        write(root, f"class/thermal/thermal_zone{number}/temp", round(celsius * 1000))
    count = os.cpu_count() or 1
    for name in ("online", "possible", "present"):
        write(root, f"devices/system/cpu/{name}", f"0-{count - 1}" if count > 1 else 0)
    for cpu in range(count):
        clocks = {"scaling_cur_freq": 1, "scaling_max_freq": 1, "cpuinfo_max_freq": 1, "scaling_min_freq": 0.25}
        for name, share in clocks.items():
            write(root, f"devices/system/cpu/cpu{cpu}/cpufreq/{name}", round(clock_mhz * 1000 * share))
        write(root, f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", governor)


def write(root: Path, name: str, value: object) -> None:
    """Write one of the files, or a new one."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
