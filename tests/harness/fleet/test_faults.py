"""Tests of faults of real devices during a run. After each, no row is lost, doubled or wrong, the other device is
unaffected, and the device in trouble is named in time, with the reason.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fault_table import FaultTable
from fleet_run import (
    COUNT,
    SOON_S,
    SPACE,
    FleetRun,
    check_all,
    check_rows,
    fill_until_noticed,
    messages,
    noticed_s,
    provoke,
    ssh_device,
)
from peers.fixtures import Peers
from peers.linux_host import LinuxHost
from waiting import wait_until

from latlab.harness.lab import Lab
from latlab.harness.transports.ssh import connection as ssh_connection

pytestmark = [pytest.mark.peers, pytest.mark.slow]

WORKER = "latlab-worker"


@pytest.fixture
def victim(peers: Peers) -> Iterator[LinuxHost]:
    host = peers.linux_host("victim", disk_mb=64)
    yield host
    peers.close(host)


@pytest.fixture(scope="module")
def bystander(peers: Peers) -> Iterator[LinuxHost]:
    host = peers.linux_host("bystander")
    yield host
    peers.close(host)


@pytest.fixture
def run(victim: LinuxHost, bystander: LinuxHost, tmp_path: Path) -> FleetRun:
    devices = {host.name: ssh_device(host, tmp_path, reconnect_s=20) for host in (victim, bystander)}
    return FleetRun(tmp_path / "latlab.db", devices, count=COUNT)


# The way to the device


def test_link_down_and_up(run: FleetRun, victim: LinuxHost, table: FaultTable) -> None:
    at = provoke(run, "victim", victim.link_down)
    seconds = noticed_s(run, "victim", at)
    time.sleep(3)
    victim.link_up()
    run.join()
    assert run.error is None
    assert [one.event.kind for one in run.incidents("victim")] == ["lost", "back"]
    table.add("link down for some seconds", seconds, messages(run, "victim"), check_all(run))
    assert seconds < SOON_S


def test_link_down_for_good(
    victim: LinuxHost,
    bystander: LinuxHost,
    tmp_path: Path,
    table: FaultTable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices = {host.name: ssh_device(host, tmp_path, reconnect_s=4) for host in (victim, bystander)}
    run = FleetRun(tmp_path / "latlab.db", devices, count=COUNT)
    with monkeypatch.context() as patch:  # not for the run after it: on a busy machine a good link may take as long
        patch.setattr(ssh_connection, "REACH_S", 3.0)
        at = provoke(run, "victim", victim.link_down)
        seconds = noticed_s(run, "victim", at)
        run.join()
    assert [one.event.kind for one in run.incidents("victim")] == ["lost", "quarantined"]
    lost = run.table()[lambda rows: rows["status"] == "device_lost"]
    assert set(lost["device"]) <= {"victim"}
    assert lost["error"].str.contains("victim").all()
    victim.link_up()
    table.add("link down for good", seconds, messages(run, "victim"), check_all(run))
    assert seconds < SOON_S


def test_sshd_killed(run: FleetRun, victim: LinuxHost, table: FaultTable) -> None:
    at = provoke(run, "victim", victim.kill_sshd)
    seconds = noticed_s(run, "victim", at)
    time.sleep(1)
    victim.start_sshd()
    run.join()
    assert [one.event.kind for one in run.incidents("victim")] == ["lost", "back"]
    table.add("sshd killed, started again", seconds, messages(run, "victim"), check_all(run))
    assert seconds < SOON_S


def test_reboot(run: FleetRun, victim: LinuxHost, table: FaultTable) -> None:
    at = provoke(run, "victim", victim.reboot)
    seconds = noticed_s(run, "victim", at)
    run.join()
    assert [one.event.kind for one in run.incidents("victim")] == ["lost", "back"]
    table.add("device rebooted", seconds, messages(run, "victim"), check_all(run))
    assert seconds < SOON_S


def test_frozen(run: FleetRun, victim: LinuxHost, table: FaultTable) -> None:
    """Every process of the device stops: the machine answers pings, and nothing else."""
    at = provoke(run, "victim", lambda: [victim.signal(pid, signal.SIGSTOP) for pid in victim.processes("sshd")])
    seconds = noticed_s(run, "victim", at)
    for pid in victim.processes("sshd"):
        victim.signal(pid, signal.SIGCONT)
    run.join()
    table.add("sshd frozen", seconds, messages(run, "victim"), check_all(run))
    assert seconds < SOON_S


# The worker and its files


def test_worker_killed(run: FleetRun, victim: LinuxHost, table: FaultTable) -> None:
    """It is replaced at once, which is no incident; a network that kills it twice would be one of its own."""
    pids = []

    def kill() -> None:
        pids.extend(victim.processes(WORKER))
        for pid in pids:
            victim.signal(pid, signal.SIGKILL)

    at = provoke(run, "victim", kill)
    run.wait_for(lambda: bool(set(victim.processes(WORKER)) - set(pids)), 10)
    seconds = time.monotonic() - at
    run.join()
    assert run.rows_of("victim") == COUNT
    table.add("worker killed", seconds, ["replaced within that time; its network is timed anew"], check_all(run))
    assert seconds < SOON_S


def test_model_corrupted_on_the_device(run: FleetRun, victim: LinuxHost, table: FaultTable) -> None:
    """While networks are loaded and between loads: each is brought there again, none is timed as it is."""

    def damage() -> None:
        for file in victim.path("/root/.cache/latlab/models").iterdir():
            file.write_bytes(b"\0" * 1000 + file.read_bytes()[1000:])

    provoke(run, "victim", damage)
    run.join()
    assert run.error is None
    assert run.rows_of("victim") == COUNT
    table.add(
        "all model files corrupted on the device", None, ["pushed again; no row of a damaged file"], check_all(run)
    )


def test_disk_full(run: FleetRun, victim: LinuxHost, table: FaultTable, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = fill_until_noticed(run, "victim", victim, "/root/.cache/latlab/models", monkeypatch)
    run.join()
    assert [one.event.kind for one in run.incidents("victim")] == ["quarantined"]
    assert "disk is full" in messages(run, "victim")[0]
    victim.free_disk()
    table.add("disk full on the device", seconds, messages(run, "victim"), check_all(run))
    assert seconds < SOON_S


# Who may


def test_host_key_changed(run: FleetRun, victim: LinuxHost, tmp_path: Path, table: FaultTable) -> None:
    """Another machine at the same address, after a cut: no word is exchanged with it."""
    path = tmp_path / "known_hosts_victim"
    right = path.read_text()

    def other_key() -> None:
        host, kind, key = right.split()[:3]
        path.write_text(f"{host} {kind} {key[:-12]}{'A' * 11 if key[-12:-1] != 'A' * 11 else 'B' * 11}{key[-1]}\n")
        victim.kill_sshd()
        victim.start_sshd()

    at = provoke(run, "victim", other_key)
    seconds = noticed_s(run, "victim", at)
    run.join()
    assert [one.event.kind for one in run.incidents("victim")] == ["lost", "quarantined"]
    assert "another key than it had" in messages(run, "victim")[-1]
    path.write_text(right)
    table.add("wrong host key", seconds, messages(run, "victim"), check_all(run))
    assert seconds < SOON_S


# The controller, as a process of its own


def command(tmp_path: Path, *names: str, count: int = COUNT) -> list[str]:
    words = [sys.executable, "-m", "latlab.harness", "measure", *names, "--space", SPACE, "--count", str(count)]
    return [*words, "--store", str(tmp_path / "latlab.db"), "--inventory", str(tmp_path / "inventory.yaml"), "--json"]


def write_inventory(tmp_path: Path, *hosts: LinuxHost) -> Path:
    devices = {h.name: ssh_device(h, tmp_path).model_dump(mode="json", exclude_none=True) for h in hosts}
    path = tmp_path / "inventory.yaml"
    path.write_text(yaml.safe_dump({"devices": devices}))
    return path


def stored(tmp_path: Path) -> pd.DataFrame:
    path = tmp_path / "latlab.db"
    return Lab(path).store.table(raw=True) if path.exists() else pd.DataFrame({"status": []})


def wait_for_stored(controller: subprocess.Popen[str], tmp_path: Path, count: int, timeout_s: float = 200) -> None:
    def enough() -> bool:
        assert controller.poll() is None, f"it ended before: {controller.communicate()}"
        return len(stored(tmp_path)) >= count

    wait_until(enough, "nothing is measured", timeout_s)


def test_controller_killed(victim: LinuxHost, bystander: LinuxHost, tmp_path: Path, table: FaultTable) -> None:
    write_inventory(tmp_path, victim, bystander)
    names = ("victim", "bystander")
    kills = 0
    for rows in (6, 16, 28):
        process = subprocess.Popen(
            command(tmp_path, *names), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )
        wait_for_stored(process, tmp_path, rows)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        before = stored(tmp_path)
        assert set(before["status"]) == {"ok"}
    start = time.monotonic()
    done = subprocess.run(command(tmp_path, *names), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    after = stored(tmp_path)
    after["device"] = after["target"].str.partition("/")[0]
    before["device"] = before["target"].str.partition("/")[0]
    check_rows(before, after, list(names))
    assert after["passes"].map(len).between(3, 5).all()
    assert len(done.stdout.splitlines()) == 2 * COUNT
    seconds = time.monotonic() - start
    note = f"killed {kills} times, at last with {len(before)} rows; the same command went on for {seconds:.0f} s"
    table.add(
        "controller killed (-9), started again", None, [note], {"rows left to the next run": 2 * COUNT - len(before)}
    )


def test_two_controllers(victim: LinuxHost, bystander: LinuxHost, tmp_path: Path, table: FaultTable) -> None:
    """The second, with a store of its own, is told who has the device; the first does not notice."""
    write_inventory(tmp_path, victim, bystander)
    endless = 5000  # so that it is still at work when the second comes, however slow that is
    first = subprocess.Popen(
        command(tmp_path, "victim", count=endless), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_stored(first, tmp_path, 3)
    other = tmp_path / "other"
    other.mkdir()
    write_inventory(other, victim, bystander)
    start = time.monotonic()
    second = subprocess.run(command(other, "victim", "bystander", count=5), capture_output=True, text=True, timeout=120)
    seconds = time.monotonic() - start
    pid, _ = victim.processes(WORKER)  # and its guard, which came later
    assert second.returncode == 3, "one of two devices failed"
    assert "in use" in second.stderr
    assert f"process {pid}" in second.stderr
    rows = stored(other)
    assert rows["target"].str.partition("/")[0].tolist() == ["bystander"] * 5
    wait_for_stored(first, tmp_path, len(stored(tmp_path)) + 10)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 130, err
    rows = stored(tmp_path)
    assert rows["status"].eq("ok").all()
    assert rows["passes"].map(len).between(3, 5).all()
    assert json.loads(out)["error"] == "interrupted"
    assert not Lab(tmp_path / "latlab.db").store.incidents().size
    reason = [line for line in second.stderr.splitlines() if "in use" in line][:1]
    table.add("two controllers at once", seconds, reason, {"rows left to the next run": 0})


def fake_time() -> str:
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"):
        library = Path(folder, "faketime", "libfaketime.so.1")
        if library.exists():
            return str(library)
    pytest.skip("libfaketime is not installed")


@pytest.mark.parametrize("where", ["worker", "controller"])
def test_clock_jumps(where: str, victim: LinuxHost, bystander: LinuxHost, tmp_path: Path, table: FaultTable) -> None:
    """The wall clock jumps by a day, forth and back, as NTP or a dead battery has it; the monotonic clock does not."""
    library = fake_time()
    jumps = tmp_path / "jumps"
    on_device = "/root/jumps"
    environment = {
        "LD_PRELOAD": library,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_TIMESTAMP_FILE": on_device if where == "worker" else str(jumps),
    }
    write_inventory(tmp_path, victim, bystander)
    if where == "worker":
        exports = " ".join(f"{name}={value}" for name, value in environment.items())
        wrapper = victim.path("/root/python-in-fake-time")
        wrapper.write_text(f'#!/bin/sh\nexec env {exports} {victim.python} "$@"\n')
        wrapper.chmod(0o755)
        inventory = yaml.safe_load((tmp_path / "inventory.yaml").read_text())
        inventory["devices"]["victim"]["python"] = "/root/python-in-fake-time"
        (tmp_path / "inventory.yaml").write_text(yaml.safe_dump(inventory))
        clock = victim.path(on_device)
    else:
        clock = jumps
    clock.write_text("+0\n")
    env = {**os.environ, **(environment if where == "controller" else {})}
    process = subprocess.Popen(
        command(tmp_path, "victim", "bystander"), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for rows, offset in ((5, "+86400"), (12, "-86400"), (20, "+0")):
        wait_for_stored(process, tmp_path, rows)
        clock.write_text(f"{offset}\n")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    rows = stored(tmp_path)
    assert len(out.splitlines()) == len(rows) == 2 * COUNT
    assert rows["status"].eq("ok").all()
    assert rows["passes"].map(len).between(3, 5).all()
    samples_ms = [s / 1e6 for row in rows["passes"] for one in row for s in one]
    assert min(samples_ms) > 0
    assert max(samples_ms) < 60_000
    if where == "controller":
        days = pd.to_datetime(rows["finished_at"], format="ISO8601").dt.date.nunique()
        assert days >= 2, "the clock did not jump"
    table.add(f"clock of the {where} jumps by a day", None, ["not noticed"], {"rows left to the next run": 0})
