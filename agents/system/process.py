"""The worker's handling of its own process: CPU affinity, standard streams, watchdog, exit."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from latlab.agents.protocol.errors import AgentError

__all__ = ["Affinity", "leave", "program_hash", "take_over_stdio", "watchdog"]


class Affinity:
    """The CPUs that all threads of this process run on: initially those that it was started on."""

    def __init__(self) -> None:
        self._usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self._current: list[int] | None = None

    def pin(self, cpus: list[int] | None) -> None:
        """Move every thread to `cpus`; None means all CPUs that the process was started on.

        Threads that a runtime starts later inherit the setting, so call this before the runtime loads.

        Raises:
            AgentError: "bad_request" if the process may not run on these CPUs.
        """
        if cpus == self._current:
            return
        if not set(cpus or self._usable) <= self._usable or cpus == []:
            usable = sorted(self._usable) or "none that can be chosen"
            raise AgentError("bad_request", f"affinity {cpus} is not possible here; usable CPUs: {usable}")
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(thread), cpus or self._usable)
        self._current = cpus


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """End this process after `seconds`, even from within native code that never returns to Python."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def take_over_stdio() -> tuple[int, int]:
    """Move stdin and stdout to new descriptors, and return the two descriptors.

    Afterwards, what a native library prints to stdout goes to stderr, and reading stdin yields nothing, so that a
    chatty runtime cannot corrupt the protocol.
    """
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return source, sink


def program_hash() -> str:
    """Return the first 16 hex digits of the SHA-256 of the file that this process was started from."""
    try:
        with open(sys.argv[0], "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return "unknown"


def leave(code: int) -> NoReturn:
    """End the process at once: shutting a runtime down takes long, and sometimes crashes."""
    sys.stderr.flush()
    os._exit(code)
