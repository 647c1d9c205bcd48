"""This machine as an SSH device: an sshd on the loopback interface, started with the helpers of the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

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


def inventory(over: str, folder: Path, stack: ExitStack) -> Path | None:
    """Return an inventory in which this machine is a device called `ssh`, whose sshd runs until the stack is closed.

    For `local` it is None: this machine needs none.
    """
    if over == "local":
        return None
    folder.mkdir()
    device = stack.enter_context(loopback_ssh(folder))
    path = folder / "inventory.yaml"
    entry = device.model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump({"devices": {over: {"transport": "ssh", **entry}}}))
    return path
