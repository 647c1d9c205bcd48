"""The lease of a device: one worker at a time may use it, and the newest worker wins.

In a work folder, the worker that has the device locks the file `lock` (flock) and writes into it, as one JSON line, who
it is. The system frees the lock however a worker ends, so nothing is left behind. Where a lock can be lost (a network
file system, a phone's SD card, a folder that was emptied), the token decides: every worker makes `lease/<n + 1>`, which
only one of them can, and removes the earlier ones. A worker whose token is gone is the older one, and stops working.
The file `folder` holds the work folder's permanent id, so that a controller does not mix up tokens of two folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Mapping

from latlab.agents.protocol.errors import DISK_FULL, AgentError
from latlab.agents.protocol.messages import WHO

__all__ = ["Lease", "acquire_lease", "in_use"]

LEASE_WAIT_S = 3.0
"""Seconds to wait for the previous worker: one whose controller was killed ends within two (`system.guard`)."""
_POLL_S = 0.02
_PROGRAM = re.compile(r"latlab-worker[^/]*\.pyz|latlab\.agents\.worker")
_FOLDER_ID = re.compile(r"[0-9a-f]{16}")


class Lease:
    """The right to use a device. It lasts until the process ends, or until a newer worker takes the device.

    Args:
        folder: the work folder's permanent id.
        token: a number higher than that of every earlier worker of the folder.
        path: the token's folder. If it is gone, so is the lease.
        descriptor: the open descriptor that holds the lock.
    """

    def __init__(self, folder: str, token: int, path: str, descriptor: int) -> None:
        self.folder, self.token = folder, token
        self._path, self._descriptor = path, descriptor

    def check(self) -> None:
        """Raise `AgentError` ("lease_lost") if a newer worker has the device."""
        try:
            os.stat(self._path)
        except OSError:
            raise AgentError(
                "lease_lost",
                f"another worker has taken over {os.path.dirname(os.path.dirname(self._path))} since "
                f"(this one has token {self.token}): what this one says does not count any more",
            ) from None

    def release(self) -> None:
        """Free the lock. The token stays, so that the next one is higher."""
        os.close(self._descriptor)


def acquire_lease(folder: str, owner: str | None = None, who: str | None = None) -> Lease:
    """Take a work folder for this process; if an earlier worker of the same owner still has it, end that worker.

    Args:
        folder: the work folder.
        owner: names the controller's run. Its earlier worker may have survived on the far side of a broken connection.
        who: text of the form `WHO`, shown to others who find the folder in use.

    Raises:
        AgentError: "busy", naming who has the folder; "bad_request" if the folder cannot be used.
        OSError: one of `DISK_FULL`.
    """
    try:
        os.makedirs(os.path.join(folder, "lease"), exist_ok=True)
        descriptor = _lock(folder, owner)
        try:
            token = next_token(os.path.join(folder, "lease"))
            holder = {"pid": os.getpid(), "owner": owner, "token": token, "who": who, "since": int(time.time())}
            line = json.dumps(holder)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{line}\n".encode("ascii"), 0)
            return Lease(_folder_id(folder), token, os.path.join(folder, "lease", str(token)), descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise AgentError("bad_request", f"cannot use the work folder {folder}: {error.strerror}") from error


def _lock(folder: str, owner: str | None) -> int:
    """Return the descriptor that holds the lock."""
    path = os.path.join(folder, "lock")
    until = time.monotonic() + LEASE_WAIT_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise AgentError("busy", f"{folder} is {in_use(holder)}") from None
            if owner is not None and _end_predecessor(_holder(descriptor), owner, folder):
                owner = None  # one kill is enough; a large process takes a moment to end
                until = time.monotonic() + LEASE_WAIT_S
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_POLL_S)


def in_use(holder: Mapping[str, object]) -> str:
    """Return who has a device and since when, from the lock's content. Malformed parts are left out."""
    pid, who, since = (holder.get(name) for name in ("pid", "who", "since"))
    worker = f"worker process {pid if type(pid) is int else 'unknown'}"
    began = ""
    if type(since) is int and 0 < since < 1 << 33:
        day = "" if time.localtime(since)[:3] == time.localtime()[:3] else "%Y-%m-%d "
        began = time.strftime(f" since {day}%H:%M %Z", time.localtime(since)).rstrip()
    if not isinstance(who, str) or not WHO.fullmatch(who):
        return f"in use by {worker}{began}"
    person, _, process = who.partition(" ")
    return f"in use by {person}{f' ({process} there)' if process else ''}{began}, {worker}"


def _is_at(path: str, descriptor: int) -> bool:
    """Return whether the locked file is still the one at `path`, which others will find."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> dict[str, object]:
    """Return what the process that holds the lock wrote into it."""
    try:
        holder = json.loads(os.pread(descriptor, 512, 0))
    except ValueError:  # it has the lock, but has not written yet
        return {}
    return holder if isinstance(holder, dict) else {}


def _end_predecessor(holder: dict[str, object], owner: str, folder: str) -> bool:
    """Kill the worker that holds the lock if it belongs to this owner, and return whether it was killed."""
    pid = holder.get("pid")
    if holder.get("owner") != owner or type(pid) is not int or pid <= 1 or pid == os.getpid():
        return False
    if not _is_worker_of(pid, folder):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def _is_worker_of(pid: int, folder: str) -> bool:
    """Return whether process `pid` is a worker of this folder. Without /proc, which would show it, return True."""
    if not os.path.isdir("/proc/self"):
        return True
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read(1 << 16).split(b"\0")]
    except OSError:
        return False
    if not any(_PROGRAM.fullmatch(os.path.basename(word)) for word in words):
        return False
    for option, value in zip(words, words[1:]):
        if option == "--work":
            # A relative folder is relative to that process's working directory.
            with contextlib.suppress(OSError):
                return os.path.samefile(os.path.join(f"/proc/{pid}/cwd", value), folder)
    return False


def next_token(folder: str) -> int:
    """Make the next higher token, remove the earlier ones, and return it."""
    while True:
        token = max(_tokens(folder), default=0) + 1
        try:
            os.mkdir(os.path.join(folder, str(token)))
        except FileExistsError:  # another worker was quicker; possible only where locks do not work
            continue
        # List them again: since the first look, this token may have been made and removed by another worker that
        # then made a higher one.
        there = _tokens(folder)
        newest = max(there, default=0) == token
        for useless in [one for one in there if one < token] if newest else [token]:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(folder, str(useless)))
        if newest:
            return token


def _tokens(folder: str) -> list[int]:
    return [int(name) for name in os.listdir(folder) if name.isdecimal()]


def _folder_id(folder: str) -> str:
    path = os.path.join(folder, "folder")
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            found = file.read(64).strip()
        if _FOLDER_ID.fullmatch(found):
            return found
    except FileNotFoundError:
        pass
    made = os.urandom(8).hex()
    unfinished = f"{path}.{os.getpid()}"
    with open(unfinished, "w", encoding="ascii") as file:
        file.write(f"{made}\n")
    os.replace(unfinished, path)
    return made
