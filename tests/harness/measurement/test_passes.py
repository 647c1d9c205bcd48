"""Tests of pass requests and replies: what a device gets of a policy, its deadline, what it returns besides samples."""

from __future__ import annotations

from typing import Any

import pytest

from latlab.agents.protocol.pass_request import PassRequest
from latlab.harness.devices.session import DeviceSession, pass_deadline_s
from latlab.harness.devices.worker_client import LoadedModel, WorkerClient
from latlab.harness.errors import BadInputError
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.local.config import LocalDevice

NVBENCH = TimingPolicy("nvbench", 1, 10, 0, 1, 0, pass_s=0.5, max_pass_s=15, stop="stdrel")


@pytest.mark.parametrize(
    ("asked", "first_s", "deadline_s"),
    [
        (PassRequest(2, 10), 0.001, 60),
        (PassRequest(2, 10), 1.0, 240),
        (PassRequest(2, 10), 100.0, 7200),
        (PassRequest(2, 10, max_warmup=20), 1.0, 600),
        (PassRequest(1, 50, warmup_s=0.5, pass_s=1, max_pass_s=150), 0.001, 210.5),
        (PassRequest(1, 50, warmup_s=0.5, pass_s=1, max_pass_s=150), 1.0, 1170.5),
        (PassRequest(1, 10, pass_s=0.5, max_pass_s=15, stop="stdrel"), 0.001, 75),
        (PassRequest(1, 10, stop="stdrel", max_runs=99), 1.0, 2000),
        (PassRequest(1, 10, stop="stdrel"), 0.01, 7200),
        (PassRequest(0, 1, pass_s=3600), 0.001, 3660),
    ],
)
def test_a_pass_may_take_so_long(asked: PassRequest, first_s: float, deadline_s: float) -> None:
    assert pass_deadline_s(asked, first_s) == pytest.approx(deadline_s)


class Told:
    """A transport that answers a pass."""

    def __init__(self, **reply: Any) -> None:
        self.reply, self.fields = reply, dict[str, Any]()

    def request(self, verb: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        assert (verb, timeout_s) == ("time", fields["deadline_s"] + 10)
        self.fields = fields
        telemetry = {"before": {}, "after": {"load": [1.0]}}
        return {"warmup_ns": [3], "samples_ns": [1, 2], "telemetry": telemetry, **self.reply}


LOADED = LoadedModel(7, 0.001, {})


def session(told: Told) -> DeviceSession:
    made = DeviceSession("here", LocalDevice(), Target("here", "onnxruntime"))
    made._worker = WorkerClient(told)  # type: ignore[arg-type]
    return made


def test_devices_are_told_of_what_is_not_at_its_default() -> None:
    told = Told()
    session(told).time(LOADED, PRESETS["help"])
    assert told.fields == {"handle": 7, "warmup": 10, "runs": 50, "deadline_s": 60}
    session(told).time(LOADED, NVBENCH)
    rules = {"pass_s": 0.5, "max_pass_s": 15, "stop": "stdrel"}
    assert told.fields == {"handle": 7, "warmup": 1, "runs": 10, "deadline_s": 75, **rules}


def test_what_a_device_tells_is_kept_be_it_no_or_nothing() -> None:
    told = Told(at_s=0.0, calls=3, settled=False, warnings=[], launch_ns=[])
    assert session(told).time(LOADED, PRESETS["help"]).telemetry == {
        "before": {},
        "after": {"load": [1.0]},
        "at_s": 0.0,
        "calls": 3,
        "settled": False,
    }


def test_a_program_without_samples_cannot_stop_by_them() -> None:
    config = ADBDevice(transport="adb", serial="x", targets=[{"runtime": "benchmark_model"}])  # type: ignore[list-item]
    phone = DeviceSession("phone", config, Target("phone", "benchmark_model"))
    with pytest.raises(BadInputError, match="policy nvbench stops a pass by its samples") as caught:
        phone.time(LOADED, NVBENCH)
    assert "--policy" in caught.value.hint
