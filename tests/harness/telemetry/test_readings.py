"""What devices say is read in one way, by everything that asks: nonsense included."""

from __future__ import annotations

from typing import Any

import pytest

from latlab.harness.devices.health_checks import conditions
from latlab.harness.devices.preconditions import Preconditions
from latlab.harness.devices.session import DeviceSession
from latlab.harness.fleet.jobs import DeviceState
from latlab.harness.statistics.verdicts import judge
from latlab.harness.sustained.windows import SustainedPass
from latlab.harness.targets import Target
from latlab.harness.telemetry.readings import (
    clock_mhz,
    cpu_clocks_mhz,
    hottest_c,
    hottest_sensor,
    number,
    temperatures_c,
    text,
    throttle_state,
)
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS
from latlab.harness.transports.local.config import LocalDevice

STATE: dict[str, Any] = {
    "temperature_c": {"broken": 200.0, "cpu-thermal": 70.0, "battery": 31, "text": "hot", "none": None},
    "gpu": [{"temperature_c": 50.0, "sm_mhz": 900.0}, {"temperature_c": float("nan")}, 7],
    "frequency_mhz": [1500.0, None, "x", -3.0, 1800.0],
}
"""One state that six pieces of code once read as 200, 70, 70, 50, 70 and 200 degrees."""


def recorded(before: dict[str, Any], after: dict[str, Any], samples: list[int], **more: Any) -> RecordedPass:
    return RecordedPass([], samples, {"before": before, "after": after, **more})


def test_everything_finds_the_same_hottest_sensor() -> None:
    assert hottest_c(STATE) == 70.0
    assert hottest_sensor(STATE) == ("cpu-thermal", 70.0)
    (heat,) = [one for one in conditions(STATE, {}) if one.check == "temperature"]
    assert heat.found == "70 °C (cpu-thermal)"
    demanding = Preconditions(LocalDevice.model_validate({"cooldown": {"below_c": 60}}), {})
    assert demanding.before_pass(STATE, 0.0, ran=False).unmet.startswith("it is at 70 °C")
    assert SustainedPass(0.0, recorded({}, STATE, [1])).temperature_c == 70.0
    device = DeviceState("here", session=DeviceSession("here", LocalDevice(), Target("here", "onnxruntime")))
    assert device.session is not None
    device.session.telemetry = STATE
    assert device.temperature_c == 70.0


def test_a_verdict_believes_no_broken_sensor() -> None:
    """A step in latency while a broken sensor moves from 200 to 500 degrees is no throttling by heat."""
    low = [1_000_000 + 100 * number for number in range(20)]
    slow = [2 * ns for ns in low]
    step = [
        recorded({"temperature_c": {"broken": 200.0}}, {"temperature_c": {"broken": 300.0}}, low),
        recorded({"temperature_c": {"broken": 400.0}}, {"temperature_c": {"broken": 500.0}}, slow),
    ]
    assert judge(step, PRESETS["help"]).kind != "throttled"
    warm = [
        recorded({"temperature_c": {"cpu": 40.0}}, {"temperature_c": {"cpu": 50.0}}, low),
        recorded({"temperature_c": {"cpu": 60.0}}, {"temperature_c": {"cpu": 80.0}}, slow),
    ]
    assert judge(warm, PRESETS["help"]).kind == "throttled"


def test_a_zone_is_read_by_its_name() -> None:
    assert hottest_c(STATE, "battery") == 31
    assert hottest_c(STATE, "gpu 0") == 50
    assert hottest_c(STATE, "broken") is None
    assert hottest_c(STATE, "gpu 9") is None
    assert sorted(temperatures_c(STATE)) == ["battery", "cpu-thermal", "gpu 0"]


def test_the_clock_is_that_of_what_ran_the_network() -> None:
    assert cpu_clocks_mhz(STATE) == [1500.0, 1800.0]
    assert clock_mhz({"after": STATE}) == 1800.0
    assert clock_mhz({"after": STATE}, gpu=0) == 900.0
    assert clock_mhz({"after": STATE}, gpu=5) is None
    assert clock_mhz({"after": STATE, "sm_mhz": [1000, 1200, 1100, "x"]}) == 1100


@pytest.mark.parametrize(
    ("value", "machine", "now", "since_boot"),
    [
        (0x50005, "aarch64", ("too little voltage", "throttled"), ("too little voltage", "throttled")),
        (0x50000, "armv7l", (), ("too little voltage", "throttled")),
        (0x50005, None, ("too little voltage", "throttled"), ("too little voltage", "throttled")),
        (0x50005, "x86_64", (), ()),
        (3, None, (), ()),
        (0, "aarch64", (), ()),
    ],
)
def test_throttling(value: int, machine: str | None, now: tuple[str, ...], since_boot: tuple[str, ...]) -> None:
    found = throttle_state({"throttled": value}, machine)
    assert found == (value, now, since_boot)


@pytest.mark.parametrize("state", [None, 7, "x", [1], {}, {"throttled": True}, {"throttled": -1}, {"throttled": 1.5}])
def test_nonsense_is_none(state: Any) -> None:
    assert throttle_state(state) is None
    assert hottest_c(state) is None
    assert clock_mhz(state) is None
    assert number(state, "a", "b") is None
    assert text(state, "a") is None


def test_seconds_and_inferences_of_a_pass() -> None:
    plain = RecordedPass([5, 5], [10, 20], {})
    assert (plain.inferences, plain.inference_s, plain.samples_s, plain.warmup_s) == (4, 40e-9, 30e-9, 10e-9)
    blocks = RecordedPass([5], [10, 20], {"calls": 100})
    assert (blocks.inferences, blocks.samples_s) == (201, pytest.approx(3000e-9))
    assert blocks.busy_s == pytest.approx(3005e-9)
    aggregate = RecordedPass([7], [1000], {"aggregate": {"runs": 50}})
    assert (aggregate.inferences, aggregate.samples_s) == (50, pytest.approx(50_000e-9))
    assert aggregate.inference_s == aggregate.samples_s
    assert aggregate.busy_s == pytest.approx(50_007e-9)


def test_without_drift() -> None:
    one = RecordedPass([5], [100, 200], {"at_s": 3.0, "calls": 2}, 4)
    corrected = one.without_drift(1.25, 60.0)
    assert (corrected.samples_ns, corrected.at_s, corrected.number) == ([80, 160], 60.0, 4)
    assert corrected.telemetry["calls"] == 2
    assert one.samples_ns == [100, 200]
