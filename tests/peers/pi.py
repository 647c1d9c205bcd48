"""A Raspberry Pi: Debian for arm64 with a real sshd and a Python, its instructions translated by QEMU.

It is some 200 times slower than this machine, and not evenly: good for packaging, protocol and architecture, never for
latencies.
"""

from __future__ import annotations

import os
from pathlib import Path

from .emulator import Emulator
from .network import Network
from .rootfs import Packages, runtimes
from .ssh import Key
from .ssh_machine import SSHMachine
from .sysfs import make_sys, write

PACKAGES = Packages(
    "arm64",
    "bookworm",
    (
        *("bash", "ca-certificates", "coreutils", "dash", "findutils", "grep", "libc-bin", "libc6", "libgomp1"),
        *("libstdc++6", "openssh-server", "procps", "python3", "python3-venv", "sed", "util-linux", "zlib1g"),
    ),
)
"""What Raspberry Pi OS has of Debian, as far as tests need it."""
_PYTHON = "3.11"
_CPU = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
_BOARD = "Revision\t: c04170\nSerial\t\t: 1000000000000001\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


class Pi(SSHMachine):
    """A machine that its files make look like a Raspberry Pi 5, where root may log in.

    Args:
        with_runtimes: whether its Python has the inference runtimes of the tests.
    """

    python = "/usr/bin/python3"
    startup_s = 90.0

    def __init__(
        self,
        network: Network,
        name: str,
        folder: Path,
        client_key: Key,
        with_runtimes: bool = True,
        disk_mb: int = 512,
    ) -> None:
        layers = [folder / "skeleton", PACKAGES.ensure()]
        if with_runtimes:
            layers.insert(1, runtimes("aarch64", _PYTHON).ensure())
        _make_skeleton(layers[0], name)
        self.sys = folder / "sys"
        """Its /sys, to be written to by tests."""
        make_sys(self.sys, {"cpu-thermal": 48.2}, 2400, "ondemand")
        write(self.sys, "devices/platform/soc/soc:firmware/get_throttled", "0")
        cpuinfo = folder / "cpuinfo"
        cpuinfo.write_text("".join(_CPU.format(number=number) for number in range(os.cpu_count() or 1)) + _BOARD)
        disguise = {"/sys": self.sys, "/proc/cpuinfo": cpuinfo}
        (folder / "formats").mkdir()
        self._emulator = Emulator(folder / "formats")
        super().__init__(network, name, folder, client_key, layers, disguise=disguise, disk_mb=disk_mb)

    def close(self) -> None:
        super().close()
        self._emulator.close()


def _make_skeleton(root: Path, name: str) -> None:
    """Write the files that installing the packages would have written."""
    etc = root / "etc"
    for part in (etc, root / "root", root / "tmp", root / "var/empty"):
        part.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n")
    (etc / "shadow").write_text("root:*:19000:0:99999:7:::\n")
    (etc / "group").write_text("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost {name}\n")
    (etc / "hostname").write_text(f"{name}\n")
