"""Tests of percentiles, jitter and throughput, on samples whose distribution is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.statistics.distribution import DISTRIBUTION, distribution, throughput_per_s
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.transports.simulated.config import SimulatedDevice

MS = 1_000_000


def taken(samples_ms: list[float], **telemetry: Any) -> RecordedPass:
    return RecordedPass([], [round(ms * MS) for ms in samples_ms], telemetry)


def test_percentiles_of_all_samples_of_all_passes() -> None:
    found = distribution([taken([float(ms) for ms in range(0, 101, 2)]), taken([float(ms) for ms in range(1, 100, 2)])])
    assert set(found) == set(DISTRIBUTION)
    assert (found["p50_ms"], found["p90_ms"], found["p95_ms"], found["p99_ms"]) == (50, 90, 95, 99)
    assert found["jitter_percent"] == pytest.approx(100 * (75 - 25) / 50)


def test_an_interruption_is_no_jitter_but_shows_at_the_top() -> None:
    found = distribution([taken([10.0] * 97 + [10.1, 500.0, 500.0])])
    assert (found["p50_ms"], found["p95_ms"], found["jitter_percent"]) == (10.0, 10.0, 0.0)
    assert found["p99_ms"] == 500.0


@pytest.mark.parametrize(
    ("samples", "names"),
    [
        (0, set()),
        (1, {"p50_ms"}),
        (4, {"p50_ms", "jitter_percent"}),
        (9, {"p50_ms", "jitter_percent"}),
        (10, {"p50_ms", "p90_ms", "jitter_percent"}),
        (20, {"p50_ms", "p90_ms", "p95_ms", "jitter_percent"}),
        (99, {"p50_ms", "p90_ms", "p95_ms", "jitter_percent"}),
        (100, set(DISTRIBUTION)),
    ],
)
def test_a_percentile_needs_samples_above_it(samples: int, names: set[str]) -> None:
    assert set(distribution([taken([1.0] * samples)])) == names


@pytest.mark.parametrize("telemetry", [{"calls": 20}, {"aggregate": {"statistic": "mean", "runs": 50}}])
def test_means_have_no_percentiles(telemetry: dict[str, Any]) -> None:
    assert distribution([taken([1.0] * 200), taken([1.0] * 200, **telemetry)]) == {}


@pytest.mark.parametrize(
    ("target", "ms", "per_s"),
    [
        ("a/onnxruntime/cpu/fp32/t1/b1", 4.0, 250.0),
        ("a/onnxruntime/cpu/fp32/t1/b8", 4.0, 2000.0),
        ("a/onnxruntime/cpu/fp32/t1/b1", 0.0, None),
        ("nonsense", 4.0, None),
    ],
)
def test_throughput(target: str, ms: float, per_s: float | None) -> None:
    assert throughput_per_s(target, ms) == per_s


def test_every_label_has_them(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "s.db")
    lab.inventory = Inventory({"sim": SimulatedDevice(transport="simulated", kind="pi4", pace=0)})
    rows = lab.measure("sim", space="nasbench201", count=2).rows
    assert (rows["p50_ms"] <= rows["p90_ms"]).all()
    # The label is a trimmed mean of the same samples.
    assert rows["p50_ms"].to_numpy() == pytest.approx(rows["latency_ms"].to_numpy(), rel=0.1)
    assert (rows["jitter_percent"] > 0).all()
    assert rows["throughput_per_s"].to_numpy() == pytest.approx(1000 / rows["latency_ms"].to_numpy())
