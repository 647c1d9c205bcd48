"""Processes of this machine, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

from waiting import wait_until

__all__ = ["all_pids", "command_line", "descendants", "status", "wait_until"]


def command_line(pid: int) -> str:
    """Return the command line of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def status(pid: int) -> dict[str, str]:
    """Return the fields of a process's status; empty where it is gone or a zombie."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    # The first thread of a process may be a zombie while others still hold its sockets.
    gone = fields["State"].startswith(("Z", "X")) and int(fields["Threads"]) <= 1
    return {} if gone else fields


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's live children, and of theirs."""
    children: dict[int, list[int]] = {}
    for other in all_pids():
        if fields := status(other):
            children.setdefault(int(fields["PPid"]), []).append(other)
    found = list(children.get(pid, []))
    for one in found:
        found.extend(children.get(one, []))
    return found
