"""Tests of metrics other than latency, from what devices report: counters, meters, nothing, nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.telemetry.energy import power_w
from latlab.harness.telemetry.metrics import METRICS, metrics
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.transports.simulated.config import SimulatedDevice

MS = 1_000_000


def reading(at_s: float, uj: dict[str, Any] | None = None, mw: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"energy": {"at_s": at_s, "uj": uj or {}, "mw": mw or {}}}


def timed(before: dict[str, Any], after: dict[str, Any], runs: int = 10, ms: float = 2.0, **extra: Any) -> RecordedPass:
    samples = [round(ms * MS)] * runs
    return RecordedPass(samples[:2], samples[2:], {"before": before, "after": after, **extra})


def test_everything_that_is_known() -> None:
    facts = {"first_ns": 3 * MS, "load_ns": 40 * MS, "memory": {"peak_mb": 12.5, "how": "VmHWM"}, "provider": "CPU"}
    # 20 ms of inference in 25 ms between the readings, in which 10 W were spent.
    counted = timed(
        reading(1.0, {"package-0": 0, "dram-0": 0}), reading(1.025, {"package-0": 200_000, "dram-0": 50_000})
    )
    found = metrics(facts, [counted, counted], 1000)
    assert set(found) == set(METRICS)
    assert found["energy_mj"] == pytest.approx(20.0)  # 10 W for 2 ms
    assert (found["first_ms"], found["open_ms"], found["file_bytes"]) == (3.0, 40.0, 1000.0)
    assert found["peak_memory_mb"] == 12.5


def test_rows_of_a_simulated_device_have_all_of_them(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "s.db")
    lab.inventory = Inventory({"sim": SimulatedDevice(transport="simulated", heating={"watts": 5.0})})
    rows = lab.measure("sim", space="nasbench201", count=2, policy="help").rows
    assert list(rows["status"]) == ["ok", "ok"]
    assert rows["energy_mj"].to_numpy() == pytest.approx(5 * rows["latency_ms"].to_numpy(), rel=0.05)
    for name in METRICS:
        assert (rows[name] > 0).all(), name


def test_nothing_is_known() -> None:
    assert metrics({}, [RecordedPass([], [5], {"before": {}, "after": {}})], 0) == {}
    assert metrics({}, [], 7) == {"file_bytes": 7.0}


def test_a_gpu_is_not_the_processor() -> None:
    before = reading(0.0, {"package-0": 0, "gpu 0": 0, "gpu 1": 0})
    after = reading(0.02, {"package-0": 1_000_000, "gpu 0": 3_000_000, "gpu 1": 4_000_000})
    one = [timed(before, after)]
    assert metrics({}, one, 0)["energy_mj"] == pytest.approx(100)
    assert metrics({"gpu": 1}, one, 0)["energy_mj"] == pytest.approx(400)
    assert "energy_mj" not in metrics({"gpu": 7}, one, 0)


def test_meters_need_time_to_show_a_pass() -> None:
    board = {"VDD_IN": 5000.0, "VDD_SOC": 1500.0}
    assert metrics({}, [timed(reading(0), reading(1, mw=board), runs=60)], 0)["energy_mj"] == pytest.approx(10)
    assert "energy_mj" not in metrics({}, [timed(reading(0), reading(1, mw=board), runs=10)], 0)
    parts = {"CPU": 2000.0, "GPU": 1000.0}
    assert metrics({}, [timed(reading(0), reading(1, mw=parts), runs=60)], 0)["energy_mj"] == pytest.approx(6)
    battery = reading(1, mw={"battery": 3000.0})
    assert "energy_mj" not in metrics({}, [timed(reading(0), battery, runs=60)], 0)
    assert metrics({}, [timed(reading(0), battery, runs=1100)], 0)["energy_mj"] == pytest.approx(6)


def test_blocks_of_calls_and_means_of_runs() -> None:
    before, after = reading(0.0, {"package-0": 0}), reading(0.1, {"package-0": 1_000_000})
    block = RecordedPass([MS], [MS] * 4, {"before": before, "after": after, "calls": 20})
    assert metrics({}, [block], 0)["energy_mj"] == pytest.approx(10)
    mean = RecordedPass([MS], [MS], {"before": before, "after": after, "aggregate": {"runs": 80}})
    assert metrics({}, [mean], 0)["energy_mj"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, reading(1.02, {"package-0": 5})),
        (reading(1.0, {"package-0": 5}), {}),
        (reading(1.0, {"package-0": 5}), reading(1.02, {"package-0": 4})),
        (reading(1.0, {"package-0": 5}), reading(1.02, {"package-0": 5})),  # it has not moved
        (reading(1.0, {"package-0": 5}), reading(0.5, {"package-0": 9})),
        (reading(1.0, {"package-0": 5}), reading(9.0, {"package-0": 9})),  # most of it was something else
        (reading(1.0, {"package-0": "a"}), reading(1.02, {"package-0": float("nan")})),
        ({"energy": []}, {"energy": {"at_s": None, "uj": 3, "mw": [1]}}),
        ({}, reading(1.0, mw={"VDD_IN": -1.0, "x": "y"})),
    ],
)
def test_nonsense_gives_nothing(before: Any, after: Any) -> None:
    assert metrics({"memory": 3, "gpu": "x", "first_ns": "1"}, [timed(before, after)], 0) == {}
    assert power_w({"before": before, "after": after}, 0.02) is None
