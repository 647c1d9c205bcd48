"""Tests of many devices at once, on workers of this machine: trouble stays with its device, and rows are kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.fleet.jobs import Incident, Job, RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.store.store import LeaseToken, Measurement
from latlab.harness.targets import Target
from latlab.harness.transports.config import TargetsConfig
from latlab.harness.transports.local.config import LocalDevice

SMALL = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
CONV = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"


def fleet_of(tmp_path: Path, *names: str, **more: LocalDevice) -> Lab:
    """Return a lab whose devices are workers on this machine, each with a folder of its own."""
    lab = Lab(tmp_path / "latlab.db")
    lab.inventory = Inventory({name: LocalDevice(work=tmp_path / name) for name in names} | more)
    return lab


def test_devices_work_side_by_side(tmp_path: Path) -> None:
    lab = fleet_of(tmp_path, "a", "b", "c")
    seen: list[str] = []
    rows = lab.measure(
        "all",
        space="nasbench201",
        archs=[SMALL, CONV],
        listener=RunListener(observe=lambda row: seen.append(type(row).__name__)),
    ).rows
    assert rows["target"].tolist() == [f"{name}/onnxruntime/cpu/fp32/t1/b1" for name in "aabbcc"]
    assert set(rows["status"]) == {"ok"}
    assert rows.groupby("arch")["artifact_sha256"].nunique().tolist() == [1, 1]
    assert seen == ["Measurement"] * 6
    # Again: nothing is left to do, and no device is asked.
    lab.inventory = Inventory({name: LocalDevice(python=tmp_path / "none") for name in "abc"})
    assert len(lab.measure(["a", "b", "c"], space="nasbench201", archs=[SMALL, CONV]).rows) == 6


def test_the_inventory_says_which_targets(tmp_path: Path) -> None:
    targets = [TargetsConfig(runtime=["onnxruntime", "torchscript"]), TargetsConfig(batch_size=[2, 4], priority=1)]
    lab = fleet_of(tmp_path, a=LocalDevice(work=tmp_path / "a", targets=targets))
    order: list[str] = []

    def observe(row: Measurement | Incident) -> None:
        assert isinstance(row, Measurement)
        order.append(lab.store.table().set_index("id").loc[row.id, "target"])

    rows = lab.measure("a", space="nasbench201", archs=[SMALL], listener=RunListener(observe=observe)).rows
    assert [target.partition("/cpu/")[2] for target in order] == [
        "fp32/t1/b2",
        "fp32/t1/b4",
        "fp32/t1/b1",
        "fp32/t1/b1",
    ]
    assert set(rows["target"]) == set(order)
    only = lab.measure("a/torchscript/cpu/fp32/t1/b1", space="nasbench201", archs=[SMALL]).rows
    assert only["target"].tolist() == ["a/torchscript/cpu/fp32/t1/b1"]
    assert (
        lab.measure("a", space="nasbench201", archs=[SMALL], options=TargetOptions(batch_size=2))
        .rows["target"]
        .nunique()
        == 1
    )


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["nobody"], TargetOptions(), "'nobody' is not in the inventory"),
        (["a", "a"], TargetOptions(), "named twice"),
        (["a/onnxruntime/cpu/fp32/t1/b1"], TargetOptions(threads=2), "leave out --runtime"),
        (["a/onnxruntime"], TargetOptions(), "is not a target"),
        ([], TargetOptions(), "say which devices"),
        (["a"], TargetOptions(accelerator="abacus"), "unknown accelerator"),
    ],
)
def test_words_that_mean_nothing(tmp_path: Path, words: list[str], options: TargetOptions, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        fleet_of(tmp_path, "a").measure(words, space="nasbench201", archs=[SMALL], options=options)


def test_a_device_in_trouble_leaves_the_others_alone(tmp_path: Path) -> None:
    lab = fleet_of(tmp_path, "good", bad=LocalDevice(python=tmp_path / "none", work=tmp_path / "bad"))
    incidents: list[Incident] = []
    rows = lab.measure(
        "all",
        space="nasbench201",
        archs=[SMALL],
        listener=RunListener(observe=lambda e: incidents.append(e) if isinstance(e, Incident) else None),
    ).rows
    assert rows["target"].tolist() == ["good/onnxruntime/cpu/fp32/t1/b1"]
    assert [(one.device, one.kind) for one in incidents] == [("bad", "lost"), ("bad", "quarantined")]
    assert "cannot start" in incidents[-1].message
    assert lab.store.incidents()["kind"].tolist() == ["lost", "quarantined"]
    with pytest.raises(LatlabError, match="cannot start"):
        lab.measure("bad", space="nasbench201", archs=[SMALL])


def test_what_was_measured_is_shown_although_the_device_is_gone(tmp_path: Path) -> None:
    lab = fleet_of(tmp_path, "a", "b")
    lab.measure(["a", "b"], space="nasbench201", archs=[SMALL])
    gone = {"a": LocalDevice(python=tmp_path / "none", work=tmp_path / "a"), "b": LocalDevice(work=tmp_path / "b")}
    lab.inventory = Inventory(gone)
    found = lab.measure(["a", "b"], space="nasbench201", archs=[SMALL, CONV])
    rows = found.rows
    assert rows[["target", "arch"]].map(lambda text: text[:8]).to_numpy().tolist() == [
        ["a/onnxru", SMALL[:8]],
        ["b/onnxru", SMALL[:8]],
        ["b/onnxru", CONV[:8]],
    ]
    assert "cannot start" in found.errors[0]
    rows.to_parquet(tmp_path / "rows.parquet")
    assert len(lab.measure("a", space="nasbench201", archs=[SMALL, CONV]).rows) == 1


def test_a_missing_accelerator_is_no_row(tmp_path: Path) -> None:
    """It would be one for every network, kept until a new session, long after the driver is mended."""
    lab = fleet_of(tmp_path, "a")
    with pytest.raises(BadInputError, match="device a cannot run a/torchscript/cuda"):
        lab.measure(
            "a", space="nasbench201", archs=[SMALL], options=TargetOptions(runtime="torchscript", accelerator="cuda")
        )
    assert lab.store.table().empty


def test_a_missing_runtime_is_no_quarantine(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {Path("/usr/bin/env")} python3 -S "$@"\n')
    bare.chmod(0o755)
    lab = fleet_of(tmp_path, a=LocalDevice(work=tmp_path / "a", python=bare))
    with pytest.raises(BadInputError, match="onnxruntime is not installed on a"):
        lab.measure("a", space="nasbench201", archs=[SMALL])
    assert lab.store.incidents()["kind"].tolist() == ["failed"]


def test_it_ends_soon_when_it_is_told_to(tmp_path: Path) -> None:
    """As Ctrl-C does it: from within an observer, while other devices are at work."""
    lab = fleet_of(tmp_path, "a", "b")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        lab.measure(["a", "b"], space="nasbench201", count=200, listener=RunListener(observe=interrupt))
    ended = time.monotonic()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("device-")]
    with lab.store.writing():  # it is free again
        pass
    rows = lab.store.table()
    assert 1 <= len(rows) < 100
    assert set(rows["status"]) == {"ok"}
    assert ended - start < 60


def test_a_stale_controller_cannot_write(tmp_path: Path) -> None:
    """Another controller used the device with this store, as if the locks of both had failed."""
    lab = fleet_of(tmp_path, "a")

    def usurp(row: Measurement | Incident) -> None:
        if isinstance(row, Measurement) and not rows_then:
            rows_then.append(row.arch)
            with lab.store.session() as session:
                folder, token = session.connection().exec_driver_sql("SELECT folder, token FROM leases").one()
            lab.store.claim(LeaseToken("a", folder, token + 1))

    rows_then: list[str] = []
    found = lab.measure("a", space="nasbench201", count=50, listener=RunListener(observe=usurp))
    assert "taken over" in found.errors[0]
    assert len(lab.store.table()) < 50


def test_jobs_of_a_device_go_by_priority(tmp_path: Path) -> None:
    lab = fleet_of(tmp_path, "a")
    begun: list[str] = []
    jobs = []
    for name, priority in (("usual", 0), ("last", -1), ("first", 5), ("usual too", 0)):
        target = Target("a", "onnxruntime")
        jobs.append(Job(target, lambda measurer, tell, name=name: begun.append(name), priority=priority))
    lab.run_jobs(jobs)
    assert begun == ["first", "usual", "usual too", "last"]


def test_onboarding_of_two_devices(tmp_path: Path) -> None:
    lab = fleet_of(tmp_path, "a", "b")
    results = lab.onboard_fleet(["a", "b"], space="nasbench201", budget=4, out=tmp_path / "out")
    assert [result.target.partition("/")[0] for result in results] == ["a", "b"]
    for result in results:
        assert result.measured == 4
        assert result.report.is_file()
    assert len({result.report for result in results}) == 2
