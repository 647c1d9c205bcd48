"""Tests of NVML on a stand-in compiled from C (values, old drivers, refusals, processes) and on a real GPU."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fake_nvidia
import pytest

from latlab.agents import host_info as host
from latlab.agents.system import nvml
from latlab.agents.system.nvml import GPU
from latlab.agents.system.sensor_files import Files
from latlab.agents.system.telemetry import GPUs, Telemetry


@pytest.fixture
def library(tmp_path: Path) -> str:
    return fake_nvidia.build(tmp_path, fake_nvidia.NVML)


def second_gpu(library: str) -> GPU:
    loaded = nvml.load(library)
    assert loaded is not None
    gpu = loaded.find("0000:17:00.0")
    assert gpu is not None
    return gpu


def test_what_a_gpu_tells(library: str) -> None:
    gpu = second_gpu(library)
    fake_nvidia.set_values(library, sm_mhz=900, reasons=0x44, process_count=3)
    assert gpu.state() == {
        "sm_mhz": 900,
        "temperature_c": 61,
        "power_w": 123.5,
        "throttled_by": ["power cap", "hardware thermal slowdown"],
        "memory_mb": 250.0,
        "processes": 3,
    }
    assert gpu.facts() == {
        "name": "NVIDIA H200",
        "driver": "570.86.15",
        "cuda": "12.8",
        "memory_mb": 1000,
        "default_sm_mhz": 1755,
        "max_sm_mhz": 1980,
    }


def test_all_gpus_of_the_machine_and_one_by_its_address(library: str) -> None:
    loaded = nvml.load(library)
    assert loaded is not None
    assert [gpu.name for gpu in loaded.gpus] == ["NVIDIA T4", "NVIDIA H200"]
    assert loaded.find("0000:99:00.0") is None


def test_drivers_from_before_names_changed(tmp_path: Path) -> None:
    library = fake_nvidia.build(tmp_path, fake_nvidia.NVML, "-DOLD")
    gpu = second_gpu(library)
    fake_nvidia.set_values(library, reasons=1, process_count=2)
    assert gpu.throttle_reasons() == ["idle"]
    assert gpu.idle()
    assert gpu.compute_pids() == [1000, 1001]


def test_a_gpu_that_refuses_everything(library: str) -> None:
    fake_nvidia.set_values(library, refused=1)
    gpu = second_gpu(library)
    assert set(gpu.state().values()) == {None}
    assert gpu.facts()["name"] is gpu.facts()["memory_mb"] is gpu.default_sm_mhz is None
    assert gpu.other_processes() is None
    assert not gpu.idle()


def test_without_a_default_the_maximum_counts(library: str) -> None:
    """GeForce cards have no applications clocks."""
    fake_nvidia.set_values(library, default_mhz=0)
    assert second_gpu(library).default_sm_mhz == 1980


def test_more_processes_than_expected(library: str) -> None:
    fake_nvidia.set_values(library, process_count=200)
    assert second_gpu(library).compute_pids() == list(range(1000, 1200))


def test_company(library: str) -> None:
    gpu = second_gpu(library)
    fake_nvidia.set_values(library, first_pid=os.getpid(), process_count=1)
    assert gpu.other_processes() is None
    fake_nvidia.set_values(library, process_count=3)
    assert gpu.other_processes() == f"other processes compute on the GPU: {os.getpid() + 1}, {os.getpid() + 2}"


def test_in_a_container_one_of_the_strangers_is_this_process(library: str) -> None:
    gpu = second_gpu(library)
    fake_nvidia.set_values(library, first_pid=os.getpid() + 1, process_count=1)
    assert gpu.other_processes() is None
    fake_nvidia.set_values(library, process_count=3)
    assert gpu.other_processes() == "2 other processes compute on the GPU"


def test_no_library_or_no_driver_behind_it(library: str, tmp_path: Path) -> None:
    assert nvml.load(str(tmp_path / "libnvidia-ml.so.1")) is None
    fake_nvidia.set_values(library, init_status=9)
    assert nvml.load(library) is None


def test_the_knob_and_the_facts(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = nvml.load(library)
    without = host.describe()
    monkeypatch.setattr(nvml, "shared", lambda: loaded)
    values = Telemetry().read()["gpu"]
    assert [value["temperature_c"] for value in values] == [61, 61]
    described = host.describe()
    assert [gpu["name"] for gpu in described["gpus"]] == ["NVIDIA T4", "NVIDIA H200"]
    assert described["fingerprint"]["gpus"] == described["gpus"]
    assert described["fingerprint"]["id"] != without["fingerprint"]["id"]


def test_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "shared", lambda: None)
    assert nvml.gpus() == []
    assert nvml.find("0000:17:00.0") is None
    assert Telemetry().read()["gpu"] is None
    described = host.describe()
    assert described["gpus"] == []
    assert "gpus" not in described["fingerprint"]


def test_the_knob_costs_next_to_nothing_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-that-is-not-there.so.1")
    nvml.shared.cache_clear()
    knob = GPUs(Files())
    try:
        assert knob.read() is None  # the only one that looks for the library
        spent = []
        for _ in range(20):
            start = time.perf_counter()
            knob.read()
            spent.append(time.perf_counter() - start)
    finally:
        nvml.shared.cache_clear()
    assert min(spent) < 100e-6


def test_a_python_without_ctypes_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "latlab.agents.system.nvml", None)
    assert GPUs(Files()).read() is None


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    gpu = nvml.gpus()[0]
    state, facts = gpu.state(), gpu.facts()
    assert facts["name"]
    assert facts["driver"]
    assert 100 <= gpu.default_sm_mhz <= gpu.max_sm_mhz <= 5000
    assert 100 <= state["sm_mhz"] <= 5000
    assert 10 <= state["temperature_c"] <= 110
    assert state["memory_mb"] <= facts["memory_mb"]
