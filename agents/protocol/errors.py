"""The ways in which work on a device fails: a few kinds that travel over the wire and end up as rows."""

from __future__ import annotations

import errno

__all__ = ["DISK_FULL", "KINDS", "AgentError"]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the `OSError` for which the kind is "no_space"."""

KINDS = frozenset(
    {
        "unsupported_op",  # the runtime does not know an operator of the network
        "out_of_memory",
        "timeout",  # the deadline of a request passed
        "crash",  # the runtime failed in a way that nothing else describes
        "bad_request",  # the caller asked for something that makes no sense
        "busy",  # somebody else uses the device
        "runtime_missing",  # the runtime, or the accelerator asked for, is not there
        "corrupt_artifact",  # the file is not the network that it claims to be
        "missing_artifact",  # the network is not on the device: it was never put there, or somebody removed it
        "no_space",  # the device's disk is full
        "lease_lost",  # somebody else has taken the device over since
    }
)


class AgentError(Exception):
    """Work on the device failed. `kind` is one of `KINDS`; `message` is for a person, and says what to do."""

    def __init__(self, kind: str, message: str) -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of failure: {kind!r}")
        super().__init__(message)
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[type[AgentError], tuple[str, str]]:
        return (AgentError, (self.kind, self.message))  # so that it survives a process pool
