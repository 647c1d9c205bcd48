"""A phone: Debian's build of Android's own adbd, with a shell, Android's commands and a Python to run the worker."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import MappingProxyType

from . import android_tools
from .machine import Machine
from .network import Network
from .processes import wait_until
from .rootfs import Packages, runtimes
from .sysfs import make_sys, write

_PACKAGES = Packages(
    "amd64", "trixie", ("adb", "adbd", "busybox-static", "libgomp1", "libstdc++6", "mksh", "python3", "zlib1g")
)
_PYTHON = "3.13"
_SHELL = 2000
"""The user as which adbd runs on a phone: it is not root, and may write to few folders."""


class Phone(Machine):
    """A phone with adbd on port 5555, which lets everybody in, as Debian builds it. See `adb_auth` for one that asks.

    Args:
        with_runtimes: whether its Python has the inference runtimes of the tests.
    """

    environment = MappingProxyType({"PATH": "/system/bin", "LC_ALL": "C", "HOME": "/"})
    port = 5555
    home = "/data/local/tmp"
    python = "/usr/bin/python3"

    def __init__(
        self, network: Network, name: str, folder: Path, with_runtimes: bool = True, disk_mb: int = 256
    ) -> None:
        self.sys = folder / "sys"
        """Its /sys, to be written to by tests."""
        make_sys(self.sys, {"cpu-0-0": 41.5, "battery": 30.2, "skin": 33.0}, 2000, "schedutil")
        for key, value in {"capacity": 83, "status": "Charging", "temp": 302, "voltage_now": 4_100_000}.items():
            write(self.sys, f"class/power_supply/battery/{key}", value)
        skeleton = folder / "skeleton"
        _make_skeleton(skeleton)
        layers = [skeleton, _PACKAGES.ensure()]
        if with_runtimes:
            layers.insert(1, runtimes("x86_64", _PYTHON).ensure())
        super().__init__(network, name, folder, layers, disguise={"/sys": self.sys}, disk_mb=disk_mb)

    def start_services(self) -> None:
        self.start_adbd()

    def start_adbd(self) -> None:
        """Starts the daemon; returns when it can be reached."""
        self.start("/usr/sbin/adbd", user=_SHELL)
        wait_until(self._listens, f"no adbd at {self.address}")

    def kill_adbd(self) -> list[int]:
        """Kill the daemon and return its id. What it started lives on, unless losing its terminal ends it."""
        return self.kill(r"^/usr/sbin/adbd")

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), timeout=10).close()
        except OSError:
            return False
        return True


class AdbClient(Machine):
    """A computer with Debian's adb, whose server does not get in the way of one that runs here."""

    def __init__(self, network: Network, name: str, folder: Path) -> None:
        skeleton = folder / "skeleton"
        _make_skeleton(skeleton)
        super().__init__(network, name, folder, [skeleton, _PACKAGES.ensure()])

    def adb(self, *arguments: str, phone: Phone) -> str:
        """Run `adb` on a phone and return its output."""
        serial = f"{phone.address}:{phone.port}"
        self.kill("fork-server")  # adb's own server, which sticks to phones, and daemons, that are no more
        connected = self._adb("connect", serial)
        if not connected.startswith("connected"):
            raise RuntimeError(connected)
        self._adb("-s", serial, "wait-for-device")
        return self._adb("-s", serial, *arguments)

    def _adb(self, *arguments: str) -> str:
        done = self.run("/usr/bin/adb", *arguments)
        if done.returncode:
            raise RuntimeError(f"adb {' '.join(arguments)} ended with {done.returncode}: {done.stdout} {done.stderr}")
        return done.stdout


def _make_skeleton(root: Path) -> None:
    folders = ("data/local/tmp", "data/misc/adb", "sdcard", "root", "etc", "tmp")
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for folder in ("data/local/tmp", "sdcard", "data/misc/adb"):
        os.chown(root / folder, _SHELL, _SHELL)
        (root / folder).chmod(0o771)
    (root / "bin").symlink_to("system/bin")
    for name in ("sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/system/bin/sh\nshell:x:2000:2000:shell:/:/system/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nshell:x:2000:\n")
    android_tools.install(root)
