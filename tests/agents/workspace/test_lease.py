"""Tests of the lease of a device: locks, tokens, and the takeover of one's own earlier worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.messages import WHO
from latlab.agents.workspace import lease as leases
from latlab.agents.workspace.lease import acquire_lease
from latlab.harness.devices.owner import owner_description

ME, ANOTHER = "a" * 32, "b" * 32
HOLD = """
import sys
sys.argv = sys.argv[1:]
from latlab.agents.workspace.lease import acquire_lease
acquire_lease(sys.argv[1], sys.argv[2] or None)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, owner: str = "", words: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Start another process that holds the lease until its stdin is closed; `words` are added to its command line."""
    command = [sys.executable, "-c", HOLD, "", str(folder), owner, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def worker_of(folder: Path) -> tuple[str, ...]:
    return ("/somewhere/latlab-worker-0123.pyz", "--work", str(folder))


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_WAIT_S", 0.1)
    folder = str(tmp_path / "work")
    first = acquire_lease(folder, ME)
    with pytest.raises(AgentError, match=f"in use by worker process {os.getpid()}") as caught:
        acquire_lease(folder, ANOTHER)
    assert caught.value.kind == "busy"
    with pytest.raises(AgentError, match="in use"):
        acquire_lease(folder)  # who does not say who it is
    with pytest.raises(AgentError, match="in use"):
        acquire_lease(folder, ME)  # this process itself, which it does not kill
    written = json.loads((tmp_path / "work" / "lock").read_text())
    assert abs(written.pop("since") - time.time()) < 60
    assert written == {"pid": os.getpid(), "owner": ME, "token": 1, "who": None}
    first.check()
    first.release()
    acquire_lease(folder, ANOTHER).release()


def test_the_second_is_told_who_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_WAIT_S", 0.1)
    first = acquire_lease(str(tmp_path), ME, "anna@workstation latlab process 1234")
    told = rf"in use by anna@workstation \(latlab process 1234 there\) since \d\d:\d\d.*, worker process {os.getpid()}$"
    with pytest.raises(AgentError, match=told):
        acquire_lease(str(tmp_path), ANOTHER)
    first.release()


def test_this_user_is_somebody_that_workers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WHO.fullmatch(owner_description())
    monkeypatch.setattr("getpass.getuser", lambda: "Jürgen $(x)\n" * 9)
    monkeypatch.setattr("socket.gethostname", lambda: "")
    assert WHO.fullmatch(owner_description())


@pytest.mark.parametrize(
    "said", [{}, {"pid": "7", "who": 7, "since": "x"}, {"pid": 7, "who": "a\x1b[2J", "since": 1 << 60}, {"since": True}]
)
def test_a_holder_that_lies_gets_no_word_in(said: dict[str, object]) -> None:
    assert leases.in_use(said) in ("in use by worker process unknown", "in use by worker process 7")


def test_a_predecessor_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert other.stdin is not None
        ending = threading.Timer(0.5, other.stdin.close)
        ending.start()
        start = time.monotonic()
        acquire_lease(str(tmp_path)).release()
        assert ending.finished.is_set()
        assert time.monotonic() - start < leases.LEASE_WAIT_S


def test_a_lock_is_not_left_behind_by_the_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.kill()
        other.wait()
        assert acquire_lease(str(tmp_path)).token == 2


def test_ones_own_earlier_worker_is_ended(tmp_path: Path) -> None:
    with holder(tmp_path, ME, words=worker_of(tmp_path)) as other:
        start = time.monotonic()
        assert acquire_lease(str(tmp_path), ME).token == 2
        assert time.monotonic() - start < leases.LEASE_WAIT_S
        assert other.wait() == -signal.SIGKILL


def test_its_folder_may_be_named_in_another_way(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with holder(tmp_path, ME, words=worker_of(tmp_path / "link" / ".")) as other:
        acquire_lease(str(tmp_path), ME).release()
        assert other.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        (ANOTHER, ["/x/latlab-worker-0123.pyz", "--work", "HERE"]),
        ("", ["/x/latlab-worker-0123.pyz", "--work", "HERE"]),
        (ME, ["/x/latlab-worker-0123.pyz", "--work", "/"]),
        (ME, ["/x/latlab-worker-0123.pyz"]),
        (ME, ["/x/editor", "--work", "HERE"]),
    ],
)
def test_others_are_left_alone(tmp_path: Path, owner: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another controller's worker; a worker of another folder; a process that is none, whatever the lock says."""
    monkeypatch.setattr(leases, "LEASE_WAIT_S", 0.2)
    with holder(tmp_path, owner, words=tuple(str(tmp_path) if w == "HERE" else w for w in words)) as other:
        with pytest.raises(AgentError, match=str(other.pid)) as caught:
            acquire_lease(str(tmp_path), ME)
        assert caught.value.kind == "busy"
        assert other.poll() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "1"}', '{"pid": 1}', '{"pid": -1}', "\xff", "x" * 999])
def test_a_lock_that_says_nonsense(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_WAIT_S", 0.1)
    first = acquire_lease(str(tmp_path), ME)
    (tmp_path / "lock").write_text(content.replace("}", f', "owner": "{ME}"}}'), encoding="latin-1")
    with pytest.raises(AgentError) as caught:
        acquire_lease(str(tmp_path), ME)
    assert caught.value.kind == "busy"
    first.release()
    acquire_lease(str(tmp_path), ME).release()


def test_the_older_one_notices(tmp_path: Path) -> None:
    first = acquire_lease(str(tmp_path))
    (tmp_path / "lock").unlink()
    second = acquire_lease(str(tmp_path))
    assert second.token > first.token
    assert second.folder == first.folder
    with pytest.raises(AgentError, match="taken over") as caught:
        first.check()
    assert caught.value.kind == "lease_lost"
    second.check()


def test_a_folder_that_was_emptied_is_another_folder(tmp_path: Path) -> None:
    first = acquire_lease(str(tmp_path / "work"))
    (tmp_path / "work").rename(tmp_path / "old")
    second = acquire_lease(str(tmp_path / "work"))
    assert (second.token, first.token) == (1, 1)
    assert second.folder != first.folder


def test_tokens_never_fall(tmp_path: Path) -> None:
    (tmp_path / "lease" / "41").mkdir(parents=True)
    (tmp_path / "lease" / "7").mkdir()
    (tmp_path / "lease" / "notes").mkdir()
    assert acquire_lease(str(tmp_path)).token == 42
    assert {path.name for path in (tmp_path / "lease").iterdir()} == {"42", "notes"}


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentError, match="cannot use the work folder") as caught:
        acquire_lease(str(tmp_path / "file"))
    assert caught.value.kind == "bad_request"


def test_a_hundred_at_once_get_a_hundred_tokens(tmp_path: Path) -> None:
    """Also where locks do not work: making a folder is what decides."""
    from concurrent.futures import ThreadPoolExecutor

    (tmp_path / "lease").mkdir()
    with ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(lambda _: leases.next_token(str(tmp_path / "lease")), range(100)))
    assert len(set(tokens)) == 100
