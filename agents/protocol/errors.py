"""The kinds of failure on a device. They travel over the wire, and those of networks become rows of the store."""

from __future__ import annotations

import errno

__all__ = ["DISK_FULL", "KINDS", "AgentError"]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of an `OSError` that make its kind "no_space"."""

KINDS = frozenset(
    {
        "unsupported_op",  # the runtime does not know an operator of the network
        "out_of_memory",
        "timeout",  # the deadline of a request passed
        "crash",  # the runtime failed in a way that no other kind describes
        "bad_request",  # the request makes no sense
        "busy",  # somebody else uses the device
        "runtime_missing",  # the runtime, or the accelerator asked for, is not there
        "corrupt_artifact",  # the file is not the network that it claims to be
        "missing_artifact",  # the network's file is not on the device: it was never put there, or was removed
        "no_space",  # the device's disk is full
        "lease_lost",  # a newer worker has taken the device over
    }
)
"""The kinds of failure. A reply names one of them."""


class AgentError(Exception):
    """A failure of work on the device. `kind` is one of `KINDS`; `message` is for a person.

    Raises:
        ValueError: if `kind` is unknown.
    """

    def __init__(self, kind: str, message: str) -> None:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of failure: {kind!r}")
        super().__init__(message)
        self.kind = kind
        self.message = message

    def __reduce__(self) -> tuple[type[AgentError], tuple[str, str]]:
        return (AgentError, (self.kind, self.message))  # an exception needs this to cross a process pool
