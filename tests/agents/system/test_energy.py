"""Tests of energy and memory on made-up file systems: a server's counters, a Jetson's meters, phones' batteries."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlab.agents.system.energy import Energy
from latlab.agents.system.peak_memory import PeakMemory
from latlab.agents.system.sensor_files import Files

MB = 10**6


def lay_out(root: Path, files: dict[str, str]) -> Energy:
    write(root, files)
    return Energy(Files(str(root)))


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def zone(number: str, name: str, energy: int) -> dict[str, str]:
    folder = f"sys/class/powercap/intel-rapl:{number}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": str(energy), f"{folder}/max_energy_range_uj": "1000"}


def test_counters_of_packages_and_their_memory(tmp_path: Path) -> None:
    files = {
        **zone("0", "package-0", 100),
        **zone("0:0", "core", 90),
        **zone("0:1", "dram", 30),
        **zone("1", "package-1", 200),
        **zone("2", "psys", 400),
        "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
        "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "7",
    }
    value = lay_out(tmp_path, files).read()
    assert value is not None
    assert value["uj"] == {"package-0": 100, "dram-0": 30, "package-1": 200}
    assert value["mw"] == {}
    assert value["at_s"] > 0


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    energy = lay_out(tmp_path, zone("0", "package-0", 990))
    seen = []
    for count in (990, 20, 500, 10):
        write(tmp_path, zone("0", "package-0", count))
        value = energy.read()
        assert value is not None
        seen.append(value["uj"]["package-0"])
    assert seen == [990, 1020, 1500, 2010]


def test_counters_that_are_kept_for_root(tmp_path: Path) -> None:
    energy = lay_out(tmp_path, zone("0", "package-0", 5))
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert energy.read() is None


def test_meters_of_a_board(tmp_path: Path) -> None:
    chip, other, fan = (f"sys/class/hwmon/hwmon{n}" for n in range(3))
    files = {f"{chip}/name": "ina3221", f"{other}/name": "ina219", f"{fan}/name": "pwmfan"}
    for channel, label, milliamperes in ((1, "VDD_IN", 1000), (2, "VDD_CPU_GPU_CV", 400), (3, "VDD_SOC", 300)):
        files[f"{chip}/in{channel}_label"] = label
        files[f"{chip}/in{channel}_input"] = "5000"
        files[f"{chip}/curr{channel}_input"] = str(milliamperes)
    files |= {f"{chip}/in4_input": "40", f"{chip}/curr4_input": "1700"}  # a sum, and a shunt's voltage
    files |= {f"{other}/power1_input": "2500000", f"{other}/in1_input": "5000", f"{other}/curr1_input": "1"}
    files |= {f"{fan}/power1_input": "1"}
    value = lay_out(tmp_path, files).read()
    assert value is not None
    assert value["mw"] == pytest.approx({"VDD_IN": 5000, "VDD_CPU_GPU_CV": 2000, "VDD_SOC": 1500, "ina219 1": 2500})


@pytest.mark.parametrize(
    ("status", "current", "milliwatts"),
    [
        ("Discharging", "-500000", 2000.0),
        ("Discharging", "500000", 2000.0),
        ("Discharging", "-500", 2000.0),  # a driver that counts in mA
        ("Charging", "500000", None),
        ("Full", "100", None),
        ("Discharging", "", None),
        ("Discharging", "9" * 400, None),
    ],
)
def test_a_battery(tmp_path: Path, status: str, current: str, milliwatts: float | None) -> None:
    folder = "sys/class/power_supply/battery"
    files = {f"{folder}/status": status, f"{folder}/current_now": current, f"{folder}/voltage_now": "4000000"}
    value = lay_out(tmp_path, files).read()
    assert (value and value["mw"]) == (None if milliwatts is None else {"battery": milliwatts})


def test_memory_that_a_block_takes_at_its_peak() -> None:
    for megabytes in (64, 32):  # the second less than the first, which has gone by then
        watch = PeakMemory()
        assert bytearray(megabytes * MB).count(1) == 0  # looked at, so that it is there
        grown = watch.grown()
        if grown is None:
            pytest.skip("this kernel does not forget how much it was")
        assert grown["peak_mb"] == pytest.approx(megabytes, rel=0.1)
        assert grown["how"] in ("VmHWM", "maxrss")


def test_memory_where_the_kernel_does_not_forget(tmp_path: Path) -> None:
    watch = PeakMemory(clear_refs=str(tmp_path / "missing" / "clear_refs"))
    assert watch.grown() is None
    kept = bytearray(400 * MB)
    assert kept.count(1) == 0
    grown = watch.grown()
    assert grown is not None
    assert grown["how"] == "maxrss"
    assert 0 < grown["peak_mb"] < 500
