"""Tests of `latlab devices`: a device is ready if its worker has just answered, and for no other reason."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from peers.loopback_host import LoopbackHost

from latlab.harness.devices import status as devices_module
from latlab.harness.devices.status import Overview, overview
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.store.store import Store
from latlab.harness.terminal.devices import show_overview
from latlab.harness.transports import open_transport
from latlab.harness.transports.config import DeviceConfig, TargetsConfig
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.ssh.config import SSHDevice

CONV = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"


def state_of(config: DeviceConfig, store: Path = Path("/none.db")) -> Overview:
    [one] = overview(Inventory({"it": config}), store)
    return one


def test_a_device_that_answers(tmp_path: Path) -> None:
    one = state_of(LocalDevice(work=tmp_path / "w"))
    assert (one.state, one.transport, one.address) == ("ready", "local", "this machine")
    assert re.fullmatch(r"answered in \d+\.\d s", one.detail)
    assert one.targets == ["onnxruntime/cpu/fp32/t1/b1"]


def test_without_an_inventory_there_is_this_machine(tmp_path: Path) -> None:
    [one] = overview(Inventory(), tmp_path / "none.db", probe=False)
    assert (one.device, one.state) == ("local", "not asked")


def test_one_that_lacks_its_runtime_is_not_ready(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    one = state_of(LocalDevice(python=bare / "bin" / "python", work=tmp_path / "w"))
    assert one.state == "not set up"
    assert "latlab setup it" in one.detail


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_one_whose_targets_want_a_gpu_that_it_lacks(tmp_path: Path) -> None:
    wanted = TargetsConfig(runtime="onnxruntime", accelerator="cuda")
    one = state_of(LocalDevice(work=tmp_path / "w", targets=[wanted]))
    assert one.state == "not set up"
    assert "no GPU" in one.detail
    assert state_of(LocalDevice(work=tmp_path / "w", targets=[wanted, TargetsConfig()])).state == "partly ready"


def test_one_in_use(tmp_path: Path) -> None:
    config = LocalDevice(work=tmp_path / "w")
    with open_transport(config, "it", "onnxruntime") as other:
        other.request("hello", 30, protocol=1)
        assert state_of(config).state == "in use"
        other.request("telemetry", 30)  # whoever uses it is not disturbed


def test_one_that_is_not_reached(loopback_host: LoopbackHost, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text(loopback_host.access.known_hosts)
    config = SSHDevice(
        host=loopback_host.address,
        port=loopback_host.port,
        user=loopback_host.user,
        key=loopback_host.access.client_key,
        known_hosts=tmp_path / "known_hosts",
        python=loopback_host.python,
        work=f"{loopback_host.home}/w",
    )
    assert state_of(config).state == "ready"
    loopback_host.kill_sshd()
    one = state_of(config)
    assert one.state == "unreachable"
    assert str(loopback_host.port) in one.detail


def test_one_whose_worker_dies(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    broken.chmod(0o755)
    one = state_of(LocalDevice(python=broken, work=tmp_path / "w"))
    assert one.state == "failing"
    assert "exit code 3" in one.detail


def test_one_that_hangs_is_waited_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are told of all the same: they are asked side by side."""
    monkeypatch.setattr(devices_module, "LIMIT_S", 4.0)
    sleepy = tmp_path / "python"
    sleepy.write_text("#!/bin/sh\nsleep 600\n")
    sleepy.chmod(0o755)
    configs: dict[str, DeviceConfig] = {f"d{n}": LocalDevice(python=sleepy, work=tmp_path / f"w{n}") for n in range(4)}
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configs["silent"] = SSHDevice(host="127.0.0.1", port=silent.getsockname()[1], user="x", patience_s=30)
        configs["toy"] = SimulatedDevice()
        found = overview(Inventory(configs), tmp_path / "none.db")
    assert time.monotonic() - started < 16  # one after another would take 20 s
    assert [one.state for one in found] == ["no answer"] * 5 + ["ready"]
    assert "latlab doctor d0" in found[0].detail


def test_what_was_measured_and_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "latlab.db"
    lab = Lab(path)
    lab.measure("local", space="nasbench201", archs=[CONV])
    lab.store.note("local", "device_lost", "device local: its cable was cut")
    lab.store.note("other", "device_lost", "it is not in the inventory")
    [one] = overview(Inventory(), path, probe=False)
    assert (one.measured, one.failed) == (1, 0)
    assert one.last_measured is not None
    assert one.last_incident is not None
    assert one.last_incident["kind"] == "device_lost"


def test_a_store_of_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "empty.db").close()
    [one] = overview(Inventory(), tmp_path / "empty.db", probe=False)
    assert (one.measured, one.last_measured) == (0, None)


@pytest.mark.parametrize("width", [40, 60, 80, 130])
def test_every_device_is_readable_at_any_width(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    at = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    incident = {"at": at, "kind": "device_lost", "message": "device pi: no sign of life"}
    targets = [f"tflite/cpu/fp32/t{threads}/b{batch}" for threads in (1, 4) for batch in (1, 8)]
    common: Any = {"transport": "ssh", "description": "", "targets": targets, "failed": 2}
    pi = Overview("pi", address="pi@[pi].lan:22", state="unreachable", detail="it is off [maybe]", measured=123,
                  last_measured=at, last_incident=incident, **common)  # fmt: skip
    show_overview([pi], Path("inventory.yaml"), Path("latlab.db"))
    shown = capsys.readouterr().out
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", shown).split())
    assert all(len(line) <= width for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines())
    for word in ("pi@[pi].lan:22", "unreachable", "123", "(2 failed)", "tflite t4", "1 more", "5 h ago", "[maybe]"):
        assert word in words
    assert "no sign of life" in words
