"""Tests of Ctrl-C over a real SSH server: whatever moment it hits, no incident of latlab's own making is left."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from killed_controllers import Controller
from peers.loopback_host import LoopbackHost

from latlab.harness.devices.status import overview
from latlab.harness.inventory.inventory import load_inventory

MOMENTS = [
    *((signal.SIGINT, wait_s) for wait_s in (0.0, 0.4, 1.1)), (signal.SIGTERM, 0.4), (signal.SIGHUP, 1.1),
]  # fmt: skip
"""Signals, and seconds after the worker has the device: during an anchor, a push, a pass."""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "wait_s"), MOMENTS)
def test_no_incident_is_left(
    loopback_host: LoopbackHost, tmp_path: Path, number: signal.Signals, wait_s: float
) -> None:
    host, known_hosts = loopback_host, tmp_path / "known_hosts"
    known_hosts.write_text(host.access.known_hosts)
    entry = {"transport": "ssh", "host": host.address, "port": host.port, "user": host.user, "python": host.python}
    entry |= {"key": host.access.client_key, "known_hosts": known_hosts, "work": f"{host.home}/work-{number}-{wait_s}"}
    lock = Path(host.home, f"work-{number}-{wait_s}", "lock")
    controller = Controller(["measure", "device", "--space", "nasbench201", "--count", "200"], tmp_path, entry, lock)
    try:
        controller.wait_for_work(0.5)
        time.sleep(wait_s)
        assert controller.kill(number, 30).exit_code == 128 + number
    finally:
        controller.close()
    [one] = overview(load_inventory(tmp_path / "inventory.yaml"), tmp_path / "latlab.db", probe=False)
    assert one.last_incident is None, json.dumps(one.last_incident)
