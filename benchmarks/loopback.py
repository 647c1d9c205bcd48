"""This machine as an SSH device: an sshd on the loopback interface, started with the helpers of the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latlab.harness.transports.ssh.config import SSHDevice

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from peers.loopback_host import LoopbackHost
from peers.ssh import Key


@contextmanager
def loopback_ssh(folder: Path) -> Iterator[SSHDevice]:
    """Run an sshd, and yield the inventory entry of its device.

    Args:
        folder: an empty folder for keys and the worker's files.
    """
    key = Key.generate(folder / "key")
    (folder / "host").mkdir()
    host = LoopbackHost("loopback", folder / "host", key)
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(host.access.known_hosts)
    try:
        yield SSHDevice(
            host=host.address,
            port=host.port,
            user=host.user,
            key=key.private,
            known_hosts=known_hosts,
            python=sys.executable,
            work=str(folder / "work"),
        )
    finally:
        host.close()
