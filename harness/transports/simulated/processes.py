"""The processes on simulated devices: their numbers, their ends, and who of them holds which device."""

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
"""A device's name, seed and work folder. Other Python processes have devices of their own."""


class Lease(NamedTuple):
    """`folder` is new in each Python process, so that tokens of different ones are never compared."""

    folder: str
    token: int


_NUMBERS = itertools.count(10_000_001)  # above what Linux gives to processes, so that none is taken for a real one
_PROCESSES: WeakValueDictionary[int, Process] = WeakValueDictionary()
_HOLDERS: WeakValueDictionary[Key, Process] = WeakValueDictionary()
_LEASES: dict[Key, Lease] = {}
_LOCK = threading.Lock()


class Process:
    """Something that can be killed, frozen and thawed, from any thread."""

    def __init__(self) -> None:
        self.pid = next(_NUMBERS)
        self.owner: str | None = None
        """The controller that it works for."""
        self.who: str | None = None
        """The same for a person."""
        self.since_s = int(time.time())
        self.idle_s = float("inf")
        self.ended: str | None = None
        """How it ended; None while it lives."""
        self.frozen = False
        self.woken = threading.Event()
        """Set when something changed that whoever waits for the process must look at."""
        self.busy = False
        """Whether a request is being worked on."""
        self.idle_since_s = time.monotonic()
        _PROCESSES[self.pid] = self

    @property
    def is_running(self) -> bool:
        """Whether it lives. It leaves by itself when no request came for `idle_s`."""
        idle = not self.frozen and not self.busy
        if self.ended is None and idle and time.monotonic() - self.idle_since_s > self.idle_s:
            self.end(f"ended with exit code 0: no request came for {self.idle_s:g} s")
        return self.ended is None

    def end(self, how: str) -> None:
        """`how`, after "the worker"."""
        if self.ended is None:
            self.ended = how
        self.woken.set()

    def signal(self, number: signal.Signals) -> None:
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.frozen = number == signal.SIGSTOP
            self.woken.set()
        else:
            self.end(f"was killed by {number.name}")


def find(pid: int) -> Process | None:
    """The process of that number, unless it ended and is forgotten."""
    return _PROCESSES.get(pid)


def acquire(key: Key, process: Process, owner: str | None) -> Lease:
    """Gives a device to a process; one of the same owner that a cut link left behind makes way.

    Raises:
        AgentError: "busy", naming who has it.
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
        return _next(key)


def is_newest(key: Key, lease: Lease) -> bool:
    """Whether no other worker has had the device since."""
    return _LEASES.get(key) == lease


def revoke(key: Key) -> None:
    """Somebody else takes the device, and leaves it."""
    with _LOCK:
        _HOLDERS.pop(key, None)
        _next(key)


def _next(key: Key) -> Lease:
    last = _LEASES.get(key) or Lease(uuid.uuid4().hex[:16], 0)
    _LEASES[key] = Lease(last.folder, last.token + 1)
    return _LEASES[key]
