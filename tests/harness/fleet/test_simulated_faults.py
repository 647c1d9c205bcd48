"""Tests of what a run makes of every fault that simulated devices can have, one at a time and all together.

After each, no row is lost, doubled or has a wrong label, the other devices are unaffected, and the same command
completes what was lost. `test_faults.py` provokes faults of real machines; what a controller sees of each simulated
fault is in `transports/simulated/test_simulated_device.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.timing_policy import TimingPolicy
from latlab.harness.transports import DeviceConfig
from latlab.harness.transports.simulated.config import SimulatedDevice

SPACE, COUNT = "nasbench201", 6
PLAIN = TimingPolicy("plain", warmup=2, runs=10, trim=0.25, passes=5, spread=1)
"""A policy without anchors, so that faults hit the campaign's own networks."""
VICTIM, BYSTANDERS = "victim", ("left", "right")


class Expected(NamedTuple):
    """The outcome that a run must have with a fault.

    Args:
        faults: of the inventory.
        incidents: that are told of the device.
        told: in the incidents, or in the rows where there are none.
        failed: statuses of rows that remain so; all others are there, now or after the same command once more.
        lost: whether the first run lacks rows of the device.
    """

    faults: dict[str, Any]
    incidents: tuple[str, ...] = ()
    told: str = ""
    failed: tuple[str, ...] = ()
    lost: bool = False


def once(kind: str, **fields: Any) -> dict[str, Any]:
    return {"schedule": [{"kind": kind, **fields}]}


FAULTS = {
    "hangs while it times": Expected(once("hang", verb="time", after_requests=3)),
    "hangs while it loads": Expected(once("hang", verb="load", after_requests=2)),
    "hangs in its books": Expected(once("hang", verb="unload")),
    "hangs at hello": Expected(once("hang", verb="hello"), ("lost", "back"), "no reply to 'hello'"),
    "hangs, always": Expected({"hangs": 1.0}, ("lost", "back") * 3 + ("lost", "quarantined"), "no reply to", lost=True),
    "crashes while it times": Expected(once("crash", verb="time", after_requests=3)),
    "crashes while it loads": Expected(once("crash", verb="load")),
    "crashes while it takes a file": Expected(once("crash", verb="put", after_requests=2)),
    "crashes, always": Expected(
        {"crashes": 1.0}, ("lost", "back") * 3 + ("lost", "quarantined"), "killed by SIGSEGV", lost=True
    ),
    "crashes and hangs now and then": Expected({"crashes": 0.05, "hangs": 0.05}, failed=("crash", "timeout")),
    "is cut off, and back at once": Expected(once("disconnect", after_requests=4), ("lost", "back"), "link was cut"),
    "is cut off for some tries": Expected(
        once("disconnect", after_requests=4, connects=3), ("lost", "back"), "link was cut"
    ),
    "is cut off twice": Expected(
        {"schedule": [{"kind": "disconnect", "after_requests": 4}, {"kind": "disconnect", "after_requests": 20}]},
        ("lost", "back", "lost", "back"),
        "link was cut",
    ),
    "is cut off for good": Expected(
        once("disconnect", after_requests=10, connects=10**6), ("lost", "quarantined"), "no route to it", lost=True
    ),
    "lets us in no more": Expected(
        once("refuse", after_requests=10), ("lost", "quarantined"), "its host key is not the one", lost=True
    ),
    "talks nonsense once": Expected(once("garbage", verb="time", after_requests=5), ("lost", "back"), "broken reply"),
    "talks nonsense of a load": Expected(once("garbage", verb="load"), ("lost", "back"), "broken reply"),
    "talks nonsense in its books": Expected(once("garbage", verb="unload"), ("lost", "back"), "broken reply"),
    "is taken over": Expected(once("lease_lost", after_requests=7), ("quarantined",), "another worker has", lost=True),
    "damages its networks while it times": Expected(once("corrupt", verb="time", after_requests=2)),
    "damages its networks before it loads": Expected(once("corrupt", verb="load", after_requests=1)),
    "has no room": Expected(once("no_space", after_requests=2), ("quarantined",), "No space left", lost=True),
    "lacks an operator": Expected({"unsupported": 0.5}, told="is not implemented", failed=("unsupported_op",)),
    "has little memory": Expected({"max_params": 300_000}, told="do not fit", failed=("out_of_memory",)),
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latlab.harness.fleet.retries.BACKOFF_S", (0.01,))


def device(**faults: Any) -> SimulatedDevice:
    """Return a device without noise, so that the right latencies are known, and without waiting (`pace` 0)."""
    return SimulatedDevice.model_validate({"kind": "ideal", "reconnect_s": 0.2, "faults": faults})


def lab_of(store: Path, devices: dict[str, DeviceConfig]) -> Lab:
    lab = Lab(store)
    lab.inventory = Inventory(devices, policies={PLAIN.name: PLAIN})
    return lab


def measure(lab: Lab) -> pd.DataFrame:
    rows = lab.measure("all", space=SPACE, count=COUNT, policy=PLAIN.name).rows
    return rows.assign(device=[target.partition("/")[0] for target in rows["target"]])


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of devices without faults."""
    names = (VICTIM, *BYSTANDERS, *(f"d{number}" for number in range(len(FAULTS))))
    rows = measure(lab_of(tmp_path_factory.mktemp("truth") / "latlab.db", {name: device() for name in names}))
    assert set(rows["status"]) == {"ok"}
    return rows


def check(rows: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Assert that no row is doubled and that every latency is right, of the right file, from all passes."""
    assert not rows.duplicated(["target", "arch", "session"]).any()
    ok = rows[rows["status"] == "ok"]
    both = ok.merge(truth, on=["target", "arch"], suffixes=("", "_true"), validate="one_to_one")
    assert len(both) == len(ok)
    assert (both["latency_ms"] == both["latency_ms_true"]).all()
    assert (both["artifact_sha256"] == both["artifact_sha256_true"]).all()
    assert both["passes"].tolist() == both["passes_true"].tolist()
    failed = rows[rows["status"] != "ok"]
    assert failed["latency_ms"].isna().all()
    assert (failed["error"].str.len() > 0).all()


@pytest.mark.parametrize("what", FAULTS)
def test_a_device_that(what: str, tmp_path: Path, truth: pd.DataFrame) -> None:
    expected = FAULTS[what]
    store = tmp_path / "latlab.db"
    lab = lab_of(store, {VICTIM: device(**expected.faults), **{name: device() for name in BYSTANDERS}})
    rows = measure(lab)
    check(rows, truth)
    # The others
    others = rows[rows["device"] != VICTIM]
    assert others["status"].tolist() == ["ok"] * COUNT * len(BYSTANDERS)
    # The one in trouble
    incidents = lab.store.incidents()
    assert set(incidents["device"]) <= {VICTIM}
    own = rows[rows["device"] == VICTIM]
    if expected.incidents:
        assert tuple(incidents["kind"]) == expected.incidents
        assert f"device {VICTIM}" in incidents["message"].iloc[-1]
    else:
        assert not len(incidents)
    assert set(own["status"]) <= {"ok", *expected.failed} | ({"device_lost"} if expected.lost else set())
    if expected.told:
        assert expected.told in "\n".join([*incidents["message"], *own["error"].dropna()])
    if expected.failed and expected.told:
        assert set(expected.failed) < set(own["status"])  # some, not all
    if expected.lost:
        assert (own["status"] == "ok").sum() < COUNT
    # The same command once more, on a device that has recovered
    again = measure(lab_of(store, {name: device() for name in (VICTIM, *BYSTANDERS)}))
    check(again, truth)
    assert len(again) == COUNT * (1 + len(BYSTANDERS))
    later = again[again["device"] == VICTIM].set_index("arch")["status"]
    kept = own[~own["status"].isin(["device_lost"])].set_index("arch")["status"]
    assert (later[kept.index] == kept).all()
    assert set(later.drop(kept.index)) <= {"ok"}


def test_all_of_it_at_once(tmp_path: Path, truth: pd.DataFrame) -> None:
    """One device for each fault, side by side."""
    store = tmp_path / "latlab.db"
    faults = {f"d{number}": device(**one.faults) for number, one in enumerate(FAULTS.values())}
    good: dict[str, DeviceConfig] = {name: device() for name in BYSTANDERS}
    rows = measure(lab_of(store, {**good, **faults}))
    check(rows, truth)
    assert rows[rows["device"].isin(BYSTANDERS)]["status"].tolist() == ["ok"] * COUNT * len(BYSTANDERS)
    again = measure(lab_of(store, {**good, **{name: device() for name in faults}}))
    check(again, truth)
    assert len(again) == COUNT * (len(FAULTS) + len(BYSTANDERS))
    assert "device_lost" not in set(again["status"])
    for number, one in enumerate(FAULTS.values()):
        assert set(again[again["device"] == f"d{number}"]["status"]) <= {"ok", *one.failed}


def test_why_the_only_device_failed_is_told(tmp_path: Path) -> None:
    lab = lab_of(tmp_path / "latlab.db", {VICTIM: device(**once("refuse"))})
    found = lab.measure("all", space=SPACE, count=COUNT, policy=PLAIN.name)
    assert set(found.rows["status"]) <= {"ok", "device_lost"}
    (error,) = found.errors
    assert error.startswith("victim/onnxruntime/cpu/fp32/t1/b1: its host key")
    assert error.endswith("the same command continues.")


def test_a_few_networks_that_kill_are_rows_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Two crashes of one network and none of the others: its row says so, for good."""
    crash = {"kind": "crash", "verb": "load"}
    lab = lab_of(tmp_path / "latlab.db", {VICTIM: device(schedule=[crash, crash])})
    rows = measure(lab)
    assert sorted(rows["status"]) == ["crash"] + ["ok"] * (COUNT - 1)
    assert "killed by SIGSEGV" in rows.set_index("status").loc["crash", "error"]
    assert not len(lab.store.incidents())
