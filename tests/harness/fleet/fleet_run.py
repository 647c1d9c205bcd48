"""A run over a fleet of peers, observed from outside: which events came when, and what the store holds afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from peers.machine import Machine
from peers.phone import Phone
from peers.ssh_machine import SSHMachine
from waiting import wait_until

from latlab.harness.devices.session import DeviceSession
from latlab.harness.devices.worker_client import LoadedModel
from latlab.harness.errors import LatlabError
from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.store.store import Measurement
from latlab.harness.transports import DeviceConfig
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.ssh.config import SSHDevice

SPACE = "nasbench201"
COUNT = 25
PATIENCE_S = 3.0
SOON_S = PATIENCE_S + 5
"""Seconds within which a fault must be reported: the devices' patience, and what a busy machine adds."""


def ssh_device(machine: SSHMachine, folder: Path, **fields: object) -> SSHDevice:
    """Return the inventory entry of a machine of `peers`."""
    known_hosts = folder / f"known_hosts_{machine.name}"
    known_hosts.write_text(machine.access.known_hosts)
    values: dict[str, object] = {
        "host": machine.address,
        "port": machine.access.port,
        "user": machine.access.user,
        "key": machine.access.client_key,
        "known_hosts": known_hosts,
        "python": machine.python,
        "patience_s": PATIENCE_S,
    }
    return SSHDevice.model_validate({**values, **fields})


def adb_device(phone: Phone, key: Path, **fields: object) -> ADBDevice:
    values: dict[str, object] = {"host": phone.address, "port": phone.port, "key": key, "python": phone.python}
    values["patience_s"] = PATIENCE_S
    return ADBDevice.model_validate({**values, **fields})


@dataclass
class Told:
    """An event, and the time at which it came."""

    event: Measurement | Incident
    at: float = field(default_factory=time.monotonic)


class FleetRun:
    """`Lab.measure` in a thread of its own.

    Args:
        options: of `Lab.measure`, beside devices and space.
    """

    def __init__(self, store: Path, devices: Mapping[str, DeviceConfig], **options: object) -> None:
        self.lab = Lab(store)
        self.lab.inventory = Inventory(dict(devices))
        self._names = list(devices)
        self._options = {"space": SPACE, "raw": True, **options}
        self.told: list[Told] = []
        self.error: BaseException | None = None
        self.rows = pd.DataFrame()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> FleetRun:
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self.rows = self.lab.measure(self._names, listener=RunListener(observe=self._observe), **self._options).rows  # type: ignore[arg-type]
        except BaseException as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()

    def _observe(self, event: Measurement | Incident) -> None:
        with self._changed:
            self.told.append(Told(event))
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or not self._thread.is_alive(), timeout_s):
                raise AssertionError(f"it did not happen within {timeout_s} s; told: {self.told[-5:]}")

    def incidents(self, device: str) -> list[Told]:
        return [one for one in self.told if isinstance(one.event, Incident) and one.event.device == device]

    def table(self) -> pd.DataFrame:
        """Return every stored row, finished or not, with its device."""
        frame = self.lab.store.table()
        frame["device"] = [target.partition("/")[0] for target in frame["target"]]
        return frame

    def rows_of(self, device: str) -> int:
        rows = self.table()
        return int(((rows["device"] == device) & (rows["status"] == "ok")).sum())

    def running(self, device: str) -> int:
        """Return the number of networks that the device has begun and not finished."""
        campaigns = self.lab.store.campaigns()
        return int(campaigns[campaigns["target"].str.startswith(f"{device}/")]["running"].sum())

    def wait_for_rows(self, device: str, count: int) -> None:
        self.wait_for(lambda: self.rows_of(device) >= count)
        assert self.rows_of(device) >= count, f"it ended before: {self.error}; {messages(self, device)}"

    def join(self, timeout_s: float = 240) -> FleetRun:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the run does not end"
        if self.error is not None and not isinstance(self.error, LatlabError):
            raise self.error
        return self


def provoke(run: FleetRun, device: str, fault: Callable[[], object], rows: int = 5) -> float:
    """Start the run, provoke a fault once the device has measured `rows` networks, and return its time."""
    run.start().wait_for_rows(device, rows)
    at = time.monotonic()
    fault()
    return at


def noticed_s(run: FleetRun, device: str, since: float, timeout_s: float = 30) -> float:
    """Return the seconds from `since` to the first incident of the device."""
    run.wait_for(lambda: bool(run.incidents(device)), timeout_s)
    return run.incidents(device)[0].at - since


def fill_until_noticed(
    run: FleetRun, device: str, machine: Machine, models: str, monkeypatch: pytest.MonkeyPatch
) -> float:
    """Fill a device's disk with foreign files until that is noticed, without networks to delete; return the seconds."""
    between_networks, load = threading.Lock(), DeviceSession.load

    def load_with_nobody_at_the_disk(self: DeviceSession, *arguments: Any) -> LoadedModel:
        with between_networks:
            return load(self, *arguments)

    monkeypatch.setattr(DeviceSession, "load", load_with_nobody_at_the_disk)
    run.start()

    def begun() -> bool:  # early: once all networks are there, a full disk harms nobody
        assert run.error is None, run.error
        return run.running(device) >= 3

    wait_until(begun, "it does not begin", 120)
    at = time.monotonic()

    def noticed() -> bool:
        if run.incidents(device):
            return True
        with between_networks:
            for file in machine.path(models).iterdir():
                file.unlink(missing_ok=True)
            machine.fill_disk()
        return False

    wait_until(noticed, "nothing is noticed")  # again and again: networks that are let go free their room late
    return run.incidents(device)[0].at - at


def check_rows(before: pd.DataFrame, after: pd.DataFrame, names: list[str]) -> None:
    """Assert that each row is there once, under the right device, and that earlier measurements are unchanged."""
    assert not after.duplicated(["target", "space", "arch", "session"]).any()
    assert (after["status"] == "ok").all(), after[["target", "arch", "status", "error"]][after["status"] != "ok"]
    assert after.groupby("device").size().to_dict() == dict.fromkeys(names, COUNT)
    shas = after.groupby("arch")["artifact_sha256"].nunique()
    assert (shas == 1).all(), "the same network is the same file on every device"
    assert after.groupby("device")["fingerprint_id"].nunique().eq(1).all()
    done = before[before["status"] == "ok"].set_index(["target", "arch"])
    kept = after.set_index(["target", "arch"]).loc[done.index]
    pd.testing.assert_series_equal(kept["raw_ms"], done["raw_ms"])  # the drift of a longer session is another one
    assert (kept["id"] == done["id"]).all()


def check_all(run: FleetRun, victim: str = "victim", bystander: str = "bystander") -> dict[str, object]:
    """Assert that the bystander has every row and that the same command completes the victim; return figures."""
    run.join()
    before = run.table()
    assert not run.incidents(bystander)
    assert (before[before["device"] == bystander]["status"] == "ok").sum() == COUNT
    left = COUNT - run.rows_of(victim)
    again = FleetRun(run.lab.store.path, run.lab.inventory.devices, count=COUNT).start().join()
    assert again.error is None, again.error
    check_rows(before, again.table(), [bystander, victim])
    passes = again.rows["passes"].map(len)
    assert passes.between(3, 5).all(), "every row has all its passes, each once"
    return {"rows left to the next run": left}


def messages(run: FleetRun, device: str) -> list[str]:
    return [
        f"{one.event.kind}: {one.event.message}" for one in run.incidents(device) if isinstance(one.event, Incident)
    ]
