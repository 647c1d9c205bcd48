"""Tests of the worker's guard, with real processes that hold Python's lock in native code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import wait_until

from latlab.agents.system import guard

BUSY = "import ctypes; ctypes.PyDLL(None).sleep(600)"
"""A call of native code that keeps Python's lock, as the import of a runtime may."""
IDLE = "sys.stdin.read()"
PROGRAM = """
import os, sys
from latlab.agents.system.guard import Guard
guard = Guard(0)
print(os.getpid(), guard._pid, flush=True)
{body}
guard.end()
"""
SOON_S = 20
"""Within this, on a machine that is busy with other things, what ends after a fraction of a second must have ended."""


def is_there(pid: int) -> bool:
    """Return whether there is such a process; a zombie counts, because it was never waited for."""
    return Path(f"/proc/{pid}").exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def worker(body: str, stdin: int | socket.socket = subprocess.PIPE) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A worker that runs `body`, and the process id of its guard."""
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            pid, guarding = map(int, process.stdout.readline().split())
            assert pid == process.pid
            yield process, guarding
        finally:
            process.kill()


def test_a_busy_worker_is_killed_when_its_input_ends() -> None:
    with worker(BUSY) as (process, guarding):
        assert is_running(guarding)
        assert process.stdin is not None
        process.stdin.write("a request that nobody reads\n")
        process.stdin.close()
        assert process.wait(SOON_S) == -signal.SIGKILL
        wait_until(lambda: not is_running(guarding), "the guard is left", SOON_S)


@pytest.mark.parametrize("half", [False, True], ids=["closed", "half closed"])
def test_the_input_may_be_a_socket(half: bool) -> None:
    """As sshd and adbd have it; both may close one direction only."""
    ours, theirs = socket.socketpair()
    with ours, worker(BUSY, theirs) as (process, _):
        theirs.close()
        if half:
            ours.shutdown(socket.SHUT_WR)
        else:
            ours.close()
        assert process.wait(SOON_S) == -signal.SIGKILL


def test_an_idle_worker_ends_by_itself_and_leaves_nothing() -> None:
    with worker(IDLE) as (process, guarding):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SOON_S) == 0
        assert not is_there(guarding)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_guard_ends_with_its_worker(number: signal.Signals) -> None:
    with worker(BUSY) as (process, guarding):
        process.send_signal(number)
        process.wait(SOON_S)
        wait_until(lambda: not is_running(guarding), "the guard is left", SOON_S)


def test_the_output_ends_with_the_worker() -> None:
    """The guard must not hold what the controller reads until its end."""
    with worker(BUSY) as (process, guarding):
        wait_until(lambda: len(os.listdir(f"/proc/{guarding}/fd")) <= 3, "the guard closes nothing", SOON_S)
        os.kill(guarding, signal.SIGSTOP)
        process.kill()
        assert process.stdout is not None
        try:
            assert process.stdout.read() == ""
        finally:
            os.kill(guarding, signal.SIGCONT)


def test_signals_for_the_whole_group_do_not_end_the_guard_first() -> None:
    with worker(f"import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; {BUSY}") as (
        process,
        guarding,
    ):
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(guarding, number)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SOON_S) == -signal.SIGKILL


PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=int(sys.argv[2]), pass_fds=[int(sys.argv[2])])
time.sleep(600)
"""


@contextmanager
def worker_of_another() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A worker whose parent is a process of its own, while this process holds the other end of the worker's input.

    Yields the parent, the worker's process id, and its guard's.
    """
    reading, writing = os.pipe()
    command = [sys.executable, "-c", PARENT, PROGRAM.format(body=BUSY), str(reading)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[reading]) as parent:
        os.close(reading)
        assert parent.stdout is not None
        pid, guarding = map(int, parent.stdout.readline().split())
        try:
            yield parent, pid, guarding
        finally:
            parent.kill()
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
            os.close(writing)


def test_a_worker_ends_with_its_parent_although_somebody_holds_its_input_open() -> None:
    with worker_of_another() as (parent, pid, guarding):
        parent.kill()
        wait_until(lambda: not is_running(pid) and not is_running(guarding), "the worker lives on", SOON_S)


def test_a_stopped_controller_keeps_its_worker() -> None:
    with worker_of_another() as (parent, pid, guarding):
        parent.send_signal(signal.SIGSTOP)
        time.sleep(2 * guard.CHECK_S + guard.GRACE_S)
        assert is_running(pid)
        assert is_running(guarding)
        parent.send_signal(signal.SIGCONT)


def test_the_parent_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(path: str, *_: object) -> int:
        raise FileNotFoundError(path)

    with_proc = guard._open_status(os.getpid())
    assert with_proc is not None
    assert guard._has_parent(with_proc, os.getppid())
    assert not guard._has_parent(with_proc, os.getpid())
    os.close(with_proc)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(os, "open", no_proc)
    without = guard._open_status(os.getpid())
    assert without is None
    assert guard._has_parent(without, os.getppid())
    assert guard._has_parent(without, 1)
    assert not guard._has_parent(without, ended.pid)


def test_it_sleeps_and_is_small() -> None:
    """It must not disturb what is timed: a look a second, and memory that it shares with the worker."""
    with worker(BUSY) as (_, guarding):
        time.sleep(2 * guard.CHECK_S)
        wakes = int(Path(f"/proc/{guarding}/status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])
        assert wakes < 20
        rollup = Path(f"/proc/{guarding}/smaps_rollup").read_text()
        own_kb = int(rollup.split("\nPrivate_Dirty:")[1].split()[0])
        assert own_kb < 8000
