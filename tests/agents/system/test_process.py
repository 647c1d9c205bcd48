"""Tests of CPU affinity and of the watchdog."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from latlab.agents.protocol.errors import AgentError
from latlab.agents.system.process import Affinity


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
    program = (
        "import signal; from latlab.agents.system.process import watchdog\n"
        f"with watchdog(0.3): {body}\n"
        "assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == code
