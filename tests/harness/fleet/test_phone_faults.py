"""Tests of the faults of a phone during a run: those of `test_faults`, over adb."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_shell.auth.keygen import keygen
from fault_table import FaultTable
from fleet_run import (
    COUNT,
    SOON_S,
    FleetRun,
    adb_device,
    check_all,
    fill_until_noticed,
    messages,
    noticed_s,
    provoke,
    ssh_device,
)
from peers.fixtures import Peers
from peers.linux_host import LinuxHost
from peers.phone import Phone

from latlab.harness.transports.adb import connection as adb_connection

pytestmark = [pytest.mark.peers, pytest.mark.slow]


@pytest.fixture(scope="module")
def bystander(peers: Peers) -> Iterator[LinuxHost]:
    host = peers.linux_host("bystander")
    yield host
    peers.close(host)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    keygen(str(tmp_path / "adbkey"))
    return tmp_path / "adbkey"


@pytest.fixture
def run(phone: Phone, bystander: LinuxHost, key: Path, tmp_path: Path) -> FleetRun:
    devices = {
        "phone": adb_device(phone, key, reconnect_s=20, targets=[{"runtime": "onnxruntime"}]),
        "bystander": ssh_device(bystander, tmp_path),
    }
    return FleetRun(tmp_path / "latlab.db", devices, count=COUNT)


def check(run: FleetRun) -> dict[str, object]:
    return check_all(run, victim="phone")


def test_link_down_and_up(run: FleetRun, phone: Phone, table: FaultTable) -> None:
    at = provoke(run, "phone", phone.link_down)
    seconds = noticed_s(run, "phone", at)
    time.sleep(2)
    phone.link_up()
    run.join()
    assert [one.event.kind for one in run.incidents("phone")] == ["lost", "back"]
    table.add("phone: link down for some seconds", seconds, messages(run, "phone"), check(run))
    assert seconds < SOON_S


def test_adbd_killed(run: FleetRun, phone: Phone, table: FaultTable) -> None:
    at = provoke(run, "phone", phone.kill_adbd)
    seconds = noticed_s(run, "phone", at)
    phone.start_adbd()
    run.join()
    assert [one.event.kind for one in run.incidents("phone")] == ["lost", "back"]
    table.add("phone: adbd killed, started again", seconds, messages(run, "phone"), check(run))
    assert seconds < SOON_S


def test_reboot(run: FleetRun, phone: Phone, table: FaultTable) -> None:
    at = provoke(run, "phone", phone.reboot)
    seconds = noticed_s(run, "phone", at)
    run.join()
    assert [one.event.kind for one in run.incidents("phone")] == ["lost", "back"]
    table.add("phone: rebooted", seconds, messages(run, "phone"), check(run))
    assert seconds < SOON_S


def test_worker_killed(run: FleetRun, phone: Phone, table: FaultTable) -> None:
    pids = []

    def kill() -> None:
        pids.extend(phone.processes("latlab-worker"))
        for pid in pids:
            phone.signal(pid, signal.SIGKILL)

    at = provoke(run, "phone", kill)
    run.wait_for(lambda: bool(set(phone.processes("latlab-worker")) - set(pids)), 10)
    seconds = time.monotonic() - at
    run.join()
    assert run.rows_of("phone") == COUNT
    table.add("phone: worker killed", seconds, ["replaced within that time; its network is timed anew"], check(run))


def test_disk_full(run: FleetRun, phone: Phone, table: FaultTable, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = fill_until_noticed(run, "phone", phone, "/data/local/tmp/latlab/models", monkeypatch)
    run.join()
    assert [one.event.kind for one in run.incidents("phone")] == ["quarantined"]
    assert "No space left" in messages(run, "phone")[0]
    phone.free_disk()
    table.add("phone: disk full", seconds, messages(run, "phone"), check(run))
    assert seconds < SOON_S


def test_key_refused(
    peers: Peers,
    phone: Phone,
    bystander: LinuxHost,
    key: Path,
    tmp_path: Path,
    table: FaultTable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The phone's user does not let this computer in; once they do, the same command measures."""
    monkeypatch.setattr(adb_connection, "CONFIRM_S", 3.0)  # nobody will touch the dialog
    gate = peers.auth_gate(phone)
    device = adb_device(phone, key, targets=[{"runtime": "onnxruntime"}])
    device = device.model_copy(update={"host": gate.address, "port": gate.port})
    devices = {"phone": device, "bystander": ssh_device(bystander, tmp_path)}
    run = FleetRun(tmp_path / "latlab.db", devices, count=COUNT)
    start = time.monotonic()
    run.start()
    seconds = noticed_s(run, "phone", start)
    run.join()
    assert [one.event.kind for one in run.incidents("phone")] == ["lost", "quarantined"]
    gate.keys.append(key.with_suffix(".pub").read_text())
    table.add("phone: key refused", seconds, messages(run, "phone"), check(run))
