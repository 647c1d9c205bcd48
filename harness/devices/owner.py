"""The user of a device: how latlab describes itself to others who find it in use, and what it advises them."""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path

from latlab.harness.transports import DeviceConfig

__all__ = ["busy_advice", "has_dead_owner", "owner_description"]

_STRANGE = re.compile(r"[^A-Za-z0-9@._:+-]")
"""Characters that `latlab.agents.protocol.messages.WHO` does not allow, and the space."""
_HOLDER = re.compile(r"in use by \S+@(\S+) \(latlab process ([0-9]{1,9}) there\)")
_WORKER = re.compile(r"worker process ([0-9]{1,9})\b")
"""Parts of a worker's message about a device in use, as `latlab.agents.workspace.lease.in_use` writes it."""


def owner_description() -> str:
    """Return the user, machine and process that a `hello` names as the device's user.

    >>> owner_description()  # doctest: +SKIP
    'anna@workstation latlab process 1234'
    """
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        user = f"user-{os.getuid()}" if hasattr(os, "getuid") else "somebody"
    return f"{_STRANGE.sub('_', user)[:32] or 'somebody'}@{_machine()} latlab process {os.getpid()}"


def has_dead_owner(message: str) -> bool:
    """Return whether a device is held by a worker of a latlab that ran on this machine and is dead.

    A worker ends with its controller, within seconds. One that did not is of a version that could not, or it hangs in
    the kernel.

    Args:
        message: the worker's words about the device in use (`latlab.agents.workspace.lease.in_use`).
    """
    holder = _HOLDER.search(message)
    return holder is not None and holder[1] == _machine() and not _is_alive(int(holder[2]))


def busy_advice(message: str, config: DeviceConfig) -> str:
    """Return what a person can do about a device in use.

    Args:
        message: the worker's words about it.
        config: the device's entry in the inventory.
    """
    worker = _WORKER.search(message)
    ending = f"`{config.shell_command(f'kill -9 {worker[1]}')}`" if worker else ""
    if has_dead_owner(message):
        return f"That latlab is dead, and its worker did not notice. End the worker: {ending}"
    advice = "It is free again, by itself, when that latlab ends: wait for it, or end it there."
    return f"{advice} If there is no such process any more, end its worker: {ending}" if ending else advice


def _machine() -> str:
    try:
        return _STRANGE.sub("_", socket.gethostname())[:32] or "unknown"
    except OSError:
        return "unknown"


def _is_alive(pid: int) -> bool:
    """Return whether there is such a process here; a zombie is dead, although its number is still taken."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        pass
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):  # no /proc
        return True
