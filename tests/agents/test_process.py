"""The lease on a work folder, affinity, and the watchdog."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latlab.agents import process
from latlab.agents.errors import AgentError
from latlab.agents.process import Affinity, acquire_lease


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LEASE_WAIT_S", 0.1)
    folder = str(tmp_path / "work")
    lease = acquire_lease(folder)
    with pytest.raises(AgentError, match=f"in use by worker process {os.getpid()}") as caught:
        acquire_lease(folder)
    assert caught.value.kind == "busy"
    os.close(lease)
    os.close(acquire_lease(folder))


def test_a_predecessor_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    program = "import sys, time, latlab.agents.process as p; p.acquire_lease(sys.argv[1]); print(); time.sleep(0.5)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        start = time.monotonic()
        os.close(acquire_lease(str(tmp_path)))
        assert time.monotonic() - start < process.LEASE_WAIT_S


def test_a_lease_is_not_left_behind_by_the_killed(tmp_path: Path) -> None:
    program = "import sys, time, latlab.agents.process as p; p.acquire_lease(sys.argv[1]); print(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        other.kill()
        other.wait()
        os.close(acquire_lease(str(tmp_path)))


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentError, match="cannot use the work folder") as caught:
        acquire_lease(str(tmp_path / "file"))
    assert caught.value.kind == "bad_request"


def test_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: moved.append(set(cpus)), raising=False)
    monkeypatch.setattr(os, "listdir", lambda _: ["1"])
    affinity = Affinity()
    affinity.pin(None)
    affinity.pin([3])
    affinity.pin([3])
    affinity.pin(None)
    assert moved == [{3}, {2, 3}]
    for impossible in ([], [0], [3, 4]):
        with pytest.raises(AgentError, match=r"usable CPUs: \[2, 3\]"):
            affinity.pin(impossible)


def test_affinity_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    affinity = Affinity()
    affinity.pin(None)
    with pytest.raises(AgentError, match="none that can be chosen"):
        affinity.pin([0])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        # Minutes in native code that never looks for Python's signals.
        ("import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 30)", -signal.SIGALRM),
        ("pass", 0),
    ],
)
def test_the_watchdog_ends_what_hangs_and_nothing_else(body: str, code: int) -> None:
    program = f"import time; from latlab.agents.process import watchdog\nwith watchdog(0.3): {body}\ntime.sleep(0.5)"
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == code
