"""Tests of cool-down and clock demands: what telemetry decides, and what a simulated device then does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from latlab.harness.devices.preconditions import Preconditions
from latlab.harness.devices.session import DeviceSession
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact
from latlab.harness.inventory.inventory import load_inventory
from latlab.harness.models.own_model import NO_COMPARISON
from latlab.harness.targets import Target
from latlab.harness.timing_policy import TimingPolicy
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.simulated.config import SimulatedDevice

HELLO = {"cpus": {"max_mhz": [2000.0, 2000.0]}}


def conditions(hello: Any = None, cpus: list[int] | None = None, **demands: Any) -> Preconditions:
    return Preconditions(LocalDevice.model_validate(demands), HELLO if hello is None else hello, cpus)


def zones(**celsius: Any) -> dict[str, Any]:
    return {"temperature_c": celsius}


def test_nothing_is_demanded() -> None:
    asked = conditions()
    assert not asked.demands
    assert asked.before_pass(zones(cpu=120), 0, ran=True) == (0.0, "", False)
    assert list(asked.findings({})) == []


def test_a_hot_device_is_waited_for_and_then_timed_all_the_same() -> None:
    asked = conditions(cooldown={"below_c": 45, "most_s": 20})
    assert asked.before_pass(zones(cpu=44.9, gpu=40), 0, ran=True).wait_s == 0
    waited, looks = 0.0, 0
    while (decision := asked.before_pass(zones(cpu=52, gpu=40), waited, ran=False)).wait_s:
        waited, looks = waited + decision.wait_s, looks + 1
        assert not decision.refused
    assert waited == 20
    assert 5 < looks < 20
    assert decision.unmet == "it is at 52 °C after 20 s of rest, not below 45 °C"


def test_one_zone_is_looked_at_where_it_is_named() -> None:
    asked = conditions(cooldown={"below_c": 45, "zone": "cpu"})
    assert asked.before_pass(zones(cpu=40, battery=60), 0, ran=False).wait_s == 0
    assert asked.before_pass(zones(cpu=50, battery=20), 0, ran=False).wait_s > 0
    gpu = conditions(cooldown={"below_c": 45, "zone": "gpu 1"})
    assert gpu.before_pass({"gpu": [{"temperature_c": 80}, {"temperature_c": 44}]}, 0, ran=False).wait_s == 0


@pytest.mark.parametrize(
    "telemetry", [{}, zones(), zones(cpu=None), zones(cpu="hot"), zones(broken=3000.0), {"temperature_c": [1]}]
)
def test_what_is_not_known_is_good(telemetry: dict[str, Any]) -> None:
    asked = conditions(cooldown={"below_c": 45}, clock={"governor": "performance", "min_percent": 90})
    assert asked.before_pass(telemetry, 0, ran=True) == (0.0, "", False)
    assert {one.state for one in asked.findings(telemetry)} == {"warning"}


def test_rest_in_any_case() -> None:
    asked = conditions(cooldown={"pause_s": 3})
    assert asked.before_pass({}, 0, ran=True).wait_s == 3
    assert asked.before_pass({}, 3, ran=False).wait_s == 0


@pytest.mark.parametrize(
    ("otherwise", "wait", "refused"), [("warn", 0, False), ("wait", 0, False), ("refuse", 0, True)]
)
def test_a_governor_is_no_matter_of_waiting(otherwise: str, wait: float, refused: bool) -> None:
    asked = conditions(clock={"governor": "performance", "otherwise": otherwise})
    decision = asked.before_pass({"governor": ["performance", "powersave"]}, 0, ran=False)
    assert decision == (wait, "its governor is performance, powersave, not performance", refused)
    assert asked.before_pass({"governor": ["performance"]}, 0, ran=False) == (0.0, "", False)


def test_a_clock_counts_when_the_device_has_just_run() -> None:
    asked = conditions(clock={"min_percent": 90, "otherwise": "wait", "most_s": 10}, cpus=[1])
    idle = {"frequency_mhz": [600.0, 600.0], "clock_limit_mhz": [2000.0, 2000.0]}
    assert asked.before_pass(idle, 0, ran=False).wait_s == 0
    slow = asked.before_pass(idle, 0, ran=True)
    assert slow.wait_s > 0
    assert slow.unmet == "its clock is at 30 % of its highest, not at 90 %"
    assert asked.before_pass({**idle, "frequency_mhz": [600.0, 1900.0]}, 0, ran=True).wait_s == 0
    hot = {"clock_limit_mhz": [2000.0, 1500.0]}  # of the CPU that counts
    assert asked.before_pass(hot, 0, ran=False).wait_s > 0
    assert asked.before_pass(hot, 10, ran=False) == (0.0, "its clock is at 75 % of its highest, not at 90 %", False)


def test_what_the_doctor_says() -> None:
    asked = conditions(
        cooldown={"below_c": 45}, clock={"governor": "performance", "min_percent": 90, "otherwise": "refuse"}
    )
    good = {**zones(cpu=40), "governor": ["performance"], "clock_limit_mhz": [2000.0]}
    assert [(one.check, one.state) for one in asked.findings(good)] == [
        ("cool-down", "ok"),
        ("demanded governor", "ok"),
        ("demanded clock", "ok"),
    ]
    bad = {**zones(cpu=60), "governor": ["ondemand"], "clock_limit_mhz": [1000.0]}
    found = {one.check: one for one in asked.findings(bad)}
    assert {check: one.state for check, one in found.items()} == {
        "cool-down": "warning",
        "demanded governor": "failed",
        "demanded clock": "warning",
    }
    assert "cpupower frequency-set -g performance" in found["demanded governor"].advice


def test_an_inventory_says_it(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(
        "devices:\n  pi:\n    transport: ssh\n    host: pi\n    cooldown: {below_c: 45, most_s: 60}\n"
        "    clock: {governor: performance, min_percent: 95, otherwise: wait}\n"
    )
    config = load_inventory(path).device("pi")
    assert config.cooldown is not None
    assert config.clock is not None
    assert (config.cooldown.below_c, config.clock.otherwise) == (45, "wait")
    for wrong in ("cooldown: {}", "clock: {otherwise: wait}", "clock: {min_percent: 0}", "cooldown: {below: 3}"):
        path.write_text(f"devices:\n  pi:\n    transport: ssh\n    host: pi\n    {wrong}\n")
        with pytest.raises(BadInputError, match="line 5: devices"):
            load_inventory(path)
    path.write_text("devices:\n  toy:\n    transport: simulated\n    cooldown: {below: 3}\n")
    with pytest.raises(BadInputError, match="did you mean below_c"):
        load_inventory(path)


# On a device that warms up, and cools down on its own clock

POLICY = TimingPolicy("test", warmup=0, runs=400, trim=0.1, passes=1, spread=0)
NETWORK = "nasbench201/|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
HEATING = {"watts": 5.0, "ambient_c": 40.0, "c_per_watt": 10.0, "time_constant_s": 2.0, "throttle_c": 200.0}


def sit(tmp_path: Path, **demands: Any) -> tuple[DeviceSession, Artifact]:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08" + bytes(999))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    artifact = Artifact("", path, digest, 1000, "onnx", 1, (1, 3, 32, 32), NO_COMPARISON, 0, 0, 0, "", "", {})
    config = SimulatedDevice.model_validate({"transport": "simulated", "heating": HEATING, "rest_ms": 0, **demands})
    return DeviceSession("sim", config, Target("sim", "onnxruntime")), artifact


def test_a_simulated_device_cools_down_on_its_own_clock(tmp_path: Path) -> None:
    device, artifact = sit(tmp_path, cooldown={"below_c": 45})
    with device:
        loaded = device.load(artifact, NETWORK)
        assert device.wait_until_fit() == 0
        hot = device.time(loaded, POLICY).telemetry
        assert hot["after"]["temperature_c"]["soc"] > 60
        assert "rested_s" not in hot
        looks: list[int] = []
        rested_s = device.wait_until_fit(lambda: looks.append(1))
        assert 2 < rested_s < 30
        assert len(looks) >= 2 * rested_s - 1
        cool = device.time(loaded, POLICY).telemetry
        assert cool["rested_s"] == rested_s
        assert cool["before"]["temperature_c"]["soc"] < 45
        assert "unfit" not in cool
        assert "rested_s" not in device.time(loaded, POLICY).telemetry


def test_a_device_that_does_not_get_cool_is_timed_and_noted(tmp_path: Path) -> None:
    device, artifact = sit(tmp_path, cooldown={"below_c": 30, "most_s": 5})
    with device:
        loaded = device.load(artifact, NETWORK)
        assert device.wait_until_fit() == 5
        telemetry = device.time(loaded, POLICY).telemetry
        assert telemetry["rested_s"] == 5
        assert "not below 30 °C" in telemetry["unfit"]


def test_a_wait_can_be_ended(tmp_path: Path) -> None:
    device, artifact = sit(tmp_path, cooldown={"below_c": 30, "most_s": 5})
    with device:
        device.load(artifact, NETWORK)
        with pytest.raises(KeyError):
            device.wait_until_fit(lambda: {}["stopped"])


def test_a_device_that_is_not_as_demanded_is_refused(tmp_path: Path) -> None:
    device, _ = sit(tmp_path, clock={"governor": "performance", "otherwise": "refuse"})
    with device, pytest.raises(BadInputError, match="device sim: its governor is simulated, not performance"):
        device.wait_until_fit()
