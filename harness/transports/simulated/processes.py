"""The worker processes on simulated devices: their ids, their ends, and the lease of each device."""

from __future__ import annotations

import itertools
import signal
import threading
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from latlab.agents.protocol.errors import AgentError
from latlab.agents.workspace.lease import in_use

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Key", "Lease", "Process", "acquire", "find", "is_newest", "revoke"]

Key = tuple[str, int, "Path | None"]
"""The key of a lease: a device's name, seed and work folder. Each Python process has simulated devices of its own."""


class Lease(NamedTuple):
    """A worker's right to use a device; the newest token holds it.

    `folder` is new in each Python process, so that tokens of different processes are never compared.
    """

    folder: str
    token: int


_PIDS = itertools.count(10_000_001)  # above all process ids of Linux, so that none is taken for a real one
_PROCESSES: WeakValueDictionary[int, Process] = WeakValueDictionary()
_HOLDERS: WeakValueDictionary[Key, Process] = WeakValueDictionary()
_LEASES: dict[Key, Lease] = {}
_LOCK = threading.Lock()


class Process:
    """A simulated process, which any thread can kill, freeze and thaw."""

    def __init__(self) -> None:
        self.pid = next(_PIDS)
        self.owner: str | None = None
        """The id of the controller that it works for."""
        self.who: str | None = None
        """The name of the controller's user and machine, as a person reads it."""
        self.since_s = int(time.time())
        self.idle_s = float("inf")
        self.ended: str | None = None
        """How it ended, as a phrase after "the worker"; None while it runs."""
        self.frozen = False
        self.woken = threading.Event()
        """Set when the state changed, so that a thread that waits for the process looks again."""
        self.busy = False
        """True while a request is being worked on."""
        self.idle_since_s = time.monotonic()
        _PROCESSES[self.pid] = self

    @property
    def is_running(self) -> bool:
        """True while it runs. It ends by itself when no request came for `idle_s`."""
        idle = not self.frozen and not self.busy
        if self.ended is None and idle and time.monotonic() - self.idle_since_s > self.idle_s:
            self.end(f"ended with exit code 0: no request came for {self.idle_s:g} s")
        return self.ended is None

    def end(self, how: str) -> None:
        """End the process, unless it has ended; `how` is a phrase after "the worker"."""
        if self.ended is None:
            self.ended = how
        self.woken.set()

    def signal(self, number: signal.Signals) -> None:
        """Do what the signal does to a process: freeze, thaw or kill it."""
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.frozen = number == signal.SIGSTOP
            self.woken.set()
        else:
            self.end(f"was killed by {number.name}")


def find(pid: int) -> Process | None:
    """Return the process with this id, or None where nothing holds it any more."""
    return _PROCESSES.get(pid)


def acquire(key: Key, process: Process, owner: str | None) -> Lease:
    """Give a device to a process; a process of the same owner, which a cut link left behind, is ended.

    Args:
        key: the device.
        process: the process that asks for it.
        owner: the id of its controller, or None.

    Raises:
        AgentError: "busy": another process has the device; the message names it.
    """
    with _LOCK:
        holder = _HOLDERS.get(key)
        if holder is not None and holder.is_running:
            if owner is None or holder.owner != owner:
                found = {"pid": holder.pid, "who": holder.who, "since": holder.since_s}
                raise AgentError("busy", f"the simulated device {key[0]} is {in_use(found)}")
            holder.end("made way for another worker of its controller")
        process.owner = owner
        _HOLDERS[key] = process
        return _next_lease(key)


def is_newest(key: Key, lease: Lease) -> bool:
    """Return whether no other worker has taken the device since."""
    return _LEASES.get(key) == lease


def revoke(key: Key) -> None:
    """End all leases of a device, as if another controller had taken and left it."""
    with _LOCK:
        _HOLDERS.pop(key, None)
        _next_lease(key)


def _next_lease(key: Key) -> Lease:
    last = _LEASES.get(key) or Lease(uuid.uuid4().hex[:16], 0)
    _LEASES[key] = Lease(last.folder, last.token + 1)
    return _LEASES[key]
