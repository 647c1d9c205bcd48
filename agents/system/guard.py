"""The guard of a worker: a small process beside it that ends it when its controller is gone.

A runtime may spend minutes in native code (a first inference, a model's compilation, its own import), often with
Python's lock held. Meanwhile neither the worker's loop nor a thread of it could notice that nobody waits any more. The
guard is a process of its own, so it notices whatever the worker does. It runs no program: it is a fork of the worker,
made before the worker has threads or a runtime.

It sleeps in poll() until one of these happens:

* The worker's stdin is closed at its other end: the controller, or the server that carries its messages, has gone.
* The worker has another parent process than at its start. This is looked up once a `CHECK_S`, for the case that some
  other process has inherited the other end of stdin and holds it open.
* The worker has ended. Then the guard ends, too.

A controller that is merely stopped (SIGSTOP, a debugger, a laptop's sleep) closes nothing and keeps its device.
"""

from __future__ import annotations

import gc
import os
import select
import signal
from contextlib import suppress
from typing import NoReturn

__all__ = ["Guard"]

CHECK_S = 1.0
"""Seconds between two looks at the worker's parent. Each takes some 50 microseconds of a processor."""
GRACE_S = 0.3
"""Seconds for a worker to end by itself: one that waits for a request needs milliseconds. Then it is killed."""
_MAX_DESCRIPTORS = 1024


class Guard:
    """The guard of this process. Make it before any thread starts, because only the thread that forks is copied.

    Args:
        source: the descriptor that the controller's requests come from: a pipe or a socket.

    Raises:
        OSError: the system allows no further process.
    """

    def __init__(self, source: int) -> None:
        worker, parent = os.getpid(), os.getppid()
        alive, self._held = os.pipe()  # this process holds the write end until it ends, however it ends
        # The guard keeps these blocked: sent to the whole group, they must not end it before its worker.
        allowed = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            self._pid = os.fork()
            if not self._pid:
                _become_guard(worker, parent, source, alive)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
        os.close(alive)

    def end(self) -> None:
        """End the guard, and collect its exit status, so that no zombie is left where process 1 collects none."""
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _become_guard(worker: int, parent: int, source: int, alive: int) -> NoReturn:
    """Watch until the worker has ended, and end with it."""
    try:
        gc.disable()  # nothing here makes garbage, and a collection would copy memory that is shared with the worker
        # With stdout or stderr open, the controller would not see their ends when the worker ends.
        os.dup2(source, 0)
        os.dup2(alive, 1)
        os.closerange(2, _MAX_DESCRIPTORS)
        if _controller_goes(worker, parent, 0, 1) and not _ends_within(1, GRACE_S) and os.getppid() == worker:
            os.kill(worker, signal.SIGKILL)  # it is this process's parent, so its number belongs to nobody else
    finally:
        os._exit(0)


def _controller_goes(worker: int, parent: int, source: int, alive: int) -> bool:
    """Wait for the end of the controller or of the worker, and return whether it is the controller that has gone."""
    poll = select.poll()
    poll.register(alive, 0)  # a hangup is reported unasked
    # A server may close one direction of a socket and keep reading the other. Only Linux reports that by itself.
    poll.register(source, getattr(select, "POLLRDHUP", 0))
    status = _open_status(worker)
    while os.getppid() == worker:
        happened = {descriptor for descriptor, _ in poll.poll(CHECK_S * 1000)}
        if alive in happened:
            return False
        if happened or not _has_parent(status, parent):
            return True
    return False


def _ends_within(alive: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(alive, 0)
    return bool(poll.poll(seconds * 1000))


def _open_status(worker: int) -> int | None:
    """Return a descriptor of what Linux says of the worker at the time of reading; None where there is no /proc."""
    try:
        return os.open(f"/proc/{worker}/stat", os.O_RDONLY)
    except OSError:
        return None


def _has_parent(status: int | None, parent: int) -> bool:
    """Return whether the worker is still a child of that process; without /proc, whether there is such a process."""
    if status is not None:
        with suppress(OSError, ValueError, IndexError):
            return int(os.pread(status, 4096, 0).rpartition(b")")[2].split(None, 2)[1]) == parent
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        pass
    return True
