"""Tests of what a person is told about a device in use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from peers.processes import descendants, status
from waiting import wait_until

from latlab.harness.devices.owner import busy_advice, has_dead_owner, owner_description
from latlab.harness.devices.session import DeviceBusyError, DeviceSession
from latlab.harness.targets import Target
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.config import DeviceConfig
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.ssh.config import SSHDevice

CONTROLLER = """
import sys, time
from latlab.harness.devices.session import DeviceSession
from latlab.harness.targets import Target
from latlab.harness.transports.local.config import LocalDevice
with DeviceSession("here", LocalDevice(work=sys.argv[1]), Target("here", "onnxruntime")) as device:
    print(device.hello.fields["pid"], flush=True)
    time.sleep(600)
"""


def busy(work: Path) -> DeviceBusyError:
    with pytest.raises(DeviceBusyError) as caught:
        DeviceSession("here", LocalDevice(work=work), Target("here", "onnxruntime")).__enter__()
    return caught.value


def test_what_a_dead_controller_left_behind_is_named_with_the_way_to_end_it(tmp_path: Path) -> None:
    """A worker without a guard, as older versions had it, that hangs: here it is stopped, and its guard killed."""
    command = [sys.executable, "-c", CONTROLLER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        worker = int(controller.stdout.readline())
        try:
            alive = busy(tmp_path)
            assert f"latlab process {controller.pid} there" in alive.message
            assert "wait for it" in str(alive.hint)
            for guard in descendants(worker):
                os.kill(guard, signal.SIGKILL)
            os.kill(worker, signal.SIGSTOP)
            controller.kill()
            controller.wait()
            left = busy(tmp_path)
            assert f"worker process {worker}" in left.message
            assert "wait" not in str(left.hint)
            assert str(left.hint).endswith(f"End the worker: `kill -9 {worker}`")
            subprocess.run(str(left.hint).split("`")[1].split(), check=True)
            wait_until(lambda: not status(worker), "the advice does not end it")
            with DeviceSession("here", LocalDevice(work=tmp_path), Target("here", "onnxruntime")):
                pass
        finally:
            if status(worker):
                os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (LocalDevice(), "`kill -9 77`"),
        (SSHDevice(host="pi", user="anna"), "`ssh anna@pi kill -9 77`"),
        (SSHDevice(host="pi", port=2222, jump=["gate", "wall"]), "`ssh -p 2222 -J gate,wall pi kill -9 77`"),
        (ADBDevice(host="phone"), "`adb -s phone:5555 shell kill -9 77`"),
        (ADBDevice(serial="R5CT"), "`adb -s R5CT shell kill -9 77`"),
    ],
)
def test_the_way_to_end_it_fits_the_device(config: DeviceConfig, command: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    me = owner_description()
    left = me.replace(f"process {os.getpid()}", f"process {ended.pid}").replace(" ", " (", 1)
    assert command in busy_advice(f"/x is in use by {left} there) since 12:00 UTC, worker process 77", config)


def test_whose_owner_is_dead() -> None:
    """Only of a process on this machine is that known."""
    mine = f"/x is in use by me@{socket.gethostname()} (latlab process {{}} there), worker process 77"
    assert not has_dead_owner(mine.format(os.getpid()))
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    wait_until(lambda: not status(zombie.pid), "it does not end")
    assert has_dead_owner(mine.format(zombie.pid))
    zombie.wait()
    assert has_dead_owner(mine.format(zombie.pid))
    assert not has_dead_owner(mine.format(zombie.pid).replace("@", "@not-"))
    assert not has_dead_owner("/x is in use by worker process 77")
    assert "wait for it" in busy_advice("/x is in use by worker process unknown", LocalDevice())
