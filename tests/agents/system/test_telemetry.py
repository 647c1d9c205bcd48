"""Tests of telemetry on made-up file systems: a Raspberry Pi's, a server's, an empty one, one that refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from latlab.agents.system.telemetry import KNOBS, Telemetry

PROC_STAT = "cpu  100 2 30 4000 50 6 7 8 0 0\ncpu0 50 1 15 2000 25 3 3 4 0 0\n"


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_raspberry_pi(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    files = {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "61322\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        "proc/stat": PROC_STAT,
        "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
        "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 2048 kB\n",
        "proc/pressure/cpu": "some avg10=0.37 avg60=0.41 avg300=0.24 total=3801288\nfull avg10=0 total=0\n",
    }
    for cpu, clock in enumerate((1500000, 600000, 1500000)):
        files[f"{cpus}/cpu{cpu}/cpufreq/scaling_cur_freq"] = f"{clock}\n"
        files[f"{cpus}/cpu{cpu}/cpufreq/scaling_governor"] = "ondemand\n"
    values = Telemetry(str(lay_out(tmp_path, files))).read()
    assert values["temperature_c"] == {"cpu-thermal": 61.322}
    assert values["frequency_mhz"] == [1500.0, 600.0, 1500.0]
    assert values["governor"] == ["ondemand"]
    assert values["throttled"] == 0x50005
    assert values["load"] == [0.52, 0.58, 0.59]
    assert values["cpu_ticks"] == {"busy": 145, "idle": 4050, "steal": 8}
    assert values["memory_mb"]["available"] == 2.0
    assert values["memory_mb"]["peak"] > 1
    assert values["pressure_us"] == 3801288


def test_a_phone(tmp_path: Path) -> None:
    battery = "sys/class/power_supply/battery"
    files = {f"{battery}/capacity": "85\n", f"{battery}/status": "Charging\n", f"{battery}/temp": "287\n"}
    files |= {"sys/class/thermal/thermal_zone0/type": "battery\n", "sys/class/thermal/thermal_zone0/temp": "28700\n"}
    values = Telemetry(str(lay_out(tmp_path, files))).read()
    assert values["battery"] == {"percent": 85, "status": "Charging", "temperature_c": 28.7}
    (tmp_path / battery / "temp").write_text("unknown")
    (tmp_path / battery / "status").unlink()
    assert Telemetry(str(tmp_path)).read()["battery"] == {"percent": 85}


def test_a_server_counts_throttling_and_has_many_zones(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{n}/thermal_throttle/core_throttle_count": f"{n}\n" for n in range(12)}
    for zone in range(3):
        files[f"sys/class/thermal/thermal_zone{zone}/type"] = "acpitz\n" if zone < 2 else "x86_pkg_temp\n"
        files[f"sys/class/thermal/thermal_zone{zone}/temp"] = f"{30000 + zone}\n"
    files["proc/cpuinfo"] = "processor : 0\ncpu MHz\t\t: 2600.125\n\nprocessor : 1\ncpu MHz\t\t: 1200.000\n"
    values = Telemetry(str(lay_out(tmp_path, files))).read()
    assert values["throttled"] == 66
    assert values["frequency_mhz"] == [2600.125, 1200.0]
    assert values["temperature_c"] == {"acpitz": 30.0, "acpitz (thermal_zone1)": 30.001, "x86_pkg_temp": 30.002}


def test_nothing_there(tmp_path: Path) -> None:
    values = Telemetry(str(tmp_path)).read()
    present = {"memory_mb", "preemptions"}  # of the process itself
    assert {name for name, value in values.items() if value is not None} == present
    assert set(values) == {knob.name for knob in KNOBS}


@pytest.mark.parametrize("content", ["", "\n", "garbage\n", "-", "\x00\xff"])
def test_files_that_hold_something_else(tmp_path: Path, content: str) -> None:
    names = ["proc/stat", "proc/loadavg", "proc/meminfo", "proc/pressure/cpu", "proc/cpuinfo"]
    names += [f"sys/class/thermal/thermal_zone0/{name}" for name in ("type", "temp")]
    names += ["sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"]
    names += [f"sys/class/power_supply/battery/{name}" for name in ("capacity", "temp")]
    values = Telemetry(str(lay_out(tmp_path, dict.fromkeys(names, content)))).read()
    assert all(
        values[name] is None
        for name in ("temperature_c", "frequency_mhz", "cpu_ticks", "load", "pressure_us", "battery")
    )


def test_a_sensor_that_goes_away(tmp_path: Path) -> None:
    files = {"sys/class/thermal/thermal_zone0/type": "cpu", "sys/class/thermal/thermal_zone0/temp": "40000"}
    telemetry = Telemetry(str(lay_out(tmp_path, files)))
    assert telemetry.read()["temperature_c"] == {"cpu": 40.0}
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").unlink()
    assert telemetry.read()["temperature_c"] is None


def test_this_machine() -> None:
    telemetry = Telemetry()
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        values = telemetry.read()
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.5
    json.dumps(values, allow_nan=False)
