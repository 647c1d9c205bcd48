"""Tests of how long a device will still take."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from latlab.harness import Lab
from latlab.harness.fleet import eta
from latlab.harness.fleet.eta import remaining
from latlab.harness.fleet.jobs import DeviceState, RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.text import spoken_duration
from latlab.harness.transports.simulated.config import SimulatedDevice


def test_there_is_none_without_ground() -> None:
    assert remaining(2, 100.0, 20, 3, 5) is None, "two passes are no pace"
    assert remaining(20, 1.0, 20, 3, 5) is None
    assert remaining(20, 60.0, 20, 0, 0) is None, "the number of passes is not known"
    assert remaining(100, 60.0, 20, 3, 5) is None, "all are taken"


def test_it_is_a_range() -> None:
    assert remaining(20, 40.0, 20, 3, 5) == (80.0, 160.0)
    assert remaining(80, 160.0, 20, 3, 5) == (0.0, 40.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4, "4 s"), (43, "45 s"), (400, "7 min"), (9000, "2.5 h"), (200_000, "2.3 days")]
)
def test_in_words(seconds: float, text: str) -> None:
    assert spoken_duration(seconds) == text


def test_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It appears once there are passes, shrinks with them, and is gone at the end; anchors do not count."""
    monkeypatch.setattr(eta, "LEAST_S", 0.0)
    lab = Lab(tmp_path / "s.db")
    lab.inventory = Inventory({"sim": SimulatedDevice(kind="ideal")})
    states: list[DeviceState] = []
    seen: list[float | None] = []

    def observe(_: object) -> None:
        found = states[0].remaining
        seen.append(None if found is None else found.most_s)

    listener = RunListener(observe=observe, watch=lambda devices: states.extend(devices.values()))
    lab.measure("sim", space="nasbench201", count=20, listener=listener)
    (state,) = states
    assert state.remaining is None, "it is over"
    assert state.earlier_passes == sum(len(lab.store.passes(int(row))) for row in lab.store.table()["id"])
    known = [one for one in seen if one is not None]
    assert all(one >= 0 for one in known)
    assert state.passes == (3, 5)
    assert time.monotonic() > state.first_pass > 0
