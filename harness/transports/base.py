"""What a transport is: a channel to one worker on one device, and a way to bring files there.

A new transport implements five small hooks; requests, deadlines, checking and the story of a lost device are
the same for all, and so is the conformance suite in tests/harness/transports.
"""

from __future__ import annotations

import errno
import select
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.messages import SHA256, SUFFIX, LineBuffer, LineTooLongError, encode
from latlab.harness.errors import plain
from latlab.harness.text import printable
from latlab.harness.transports.reply_validation import BrokenReplyError, check_reply

__all__ = ["ConnectError", "Deadline", "DeviceLostError", "ProtocolError", "Transport", "WorkerError"]

PUT_S = 60.0
"""Deadline of a `put`, to which the time for hashing is added."""
HASHED_BYTES_PER_S = 10e6
"""Of the slowest device imagined."""
_STDERR_LINES = 20
_STDERR_LINE = 500


class WorkerError(Exception):
    """The worker could not do what it was asked, and lives. `kind` is one of `latlab.agents.protocol.errors.KINDS`."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        self.message = plain(message)
        super().__init__(self.message)


class DeviceLostError(Exception):
    """The worker is gone or silent; the message names the device, the reason and the worker's last words.

    What it was doing is lost; `Transport.start` begins anew.
    """

    def __init__(self, message: str, *, timed_out: bool = False, unreachable: bool = False) -> None:
        self.message = plain(message)
        super().__init__(self.message)
        self.timed_out = timed_out
        """Whether a deadline passed (and not: the worker died)."""
        self.unreachable = unreachable
        """Whether the way to the device is gone (and not: the worker alone), which is no network's fault."""


class ConnectError(DeviceLostError):
    """The device is not reached, or does not let us in.

    Args:
        step: the one of `Transport.STEPS` that failed; those before it went well.
        advice: what a person can do about it.
        lasting: trying again is of no use before a person has done that (a wrong host key, a refused key).
    """

    def __init__(self, message: str, *, step: str, advice: str = "", lasting: bool = False) -> None:
        super().__init__(message, unreachable=True)
        self.step, self.advice, self.lasting = step, advice, lasting


class ProtocolError(DeviceLostError):
    """The worker said something that is not the protocol. It is not to be trusted any more, and was ended."""


class Deadline:
    """A moment, `seconds` from now, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; 0 once it has passed."""
        return max(0.0, self._at - time.monotonic())


class ChannelClosedError(Exception):
    """Raised by hooks when the worker is gone; the message, after "the worker", says how it ended."""


class ChannelLostError(Exception):
    """Raised by hooks when the way to the device is gone; the message says how that was noticed."""


class ChannelTimeoutError(Exception):
    """Raised by hooks when the deadline passed."""


_CHANNEL_ERRORS = (ChannelClosedError, ChannelLostError, ChannelTimeoutError, BrokenReplyError, LineTooLongError)


class Transport(ABC):
    """One controller's channel to one worker, for one thread at a time. A context manager: starts, closes.

    Args:
        name: the device, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._number = 0
        self._open = False
        self._lines = LineBuffer()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._stderr_rest = ""

    # What a transport implements

    STEPS: ClassVar[tuple[str, ...]]
    """What `_connect` goes through, in order, in words for a person, e.g. ("network", "host key", "login")."""

    @abstractmethod
    def _connect(self) -> None:
        """Brings the worker's program to the device and starts it.

        Raises:
            ConnectError: naming the step that failed.
        """

    @abstractmethod
    def _send(self, data: bytes, deadline: Deadline) -> None:
        """Writes to the worker's stdin.

        Raises `ChannelClosedError`, `ChannelLostError` or `ChannelTimeoutError`.
        """

    @abstractmethod
    def _receive(self, deadline: Deadline) -> bytes:
        """What comes next from the worker's stdout, at least one byte; hands its stderr to `_note_stderr`.

        Raises `ChannelClosedError`, `ChannelLostError` or `ChannelTimeoutError`.
        """

    @abstractmethod
    def _transfer(self, path: Path, sha256: str) -> None:
        """Brings a file to `incoming/<sha256>` in the work folder, whole or not at all.

        Raises `OSError` where the device refuses it (`errno.ENOSPC`: its disk is full), or `ChannelLostError`.
        """

    @abstractmethod
    def _disconnect(self, *, gently: bool) -> None:
        """Ends the worker and frees the channel; gently: lets it end by itself first. Twice is fine."""

    # What all transports do

    def start(self) -> None:
        """Starts the worker; the first request is a `hello`. Raises `ConnectError`."""
        self.close()
        self._lines = LineBuffer()
        self._stderr.clear()
        self._stderr_rest = ""
        self._connect()
        self._open = True

    def request(self, verb: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Asks the worker for something and waits for its reply.

        Returns:
            The reply's fields, checked.

        Raises:
            WorkerError: the worker says why it cannot; it lives on.
            DeviceLostError: no reply within `timeout_s`, or the worker is gone.
            ProtocolError: a reply that is none.
        """
        if not self._open:
            raise DeviceLostError(f"device {self.name}: no worker is running (its transport was not started)")
        self._number += 1
        deadline = Deadline(timeout_s)
        try:
            self._send(encode({"id": self._number, "verb": verb, **fields}), deadline)
            return check_reply(self._line(deadline), self._number, verb, fields)
        except AgentError as error:
            raise WorkerError(error.kind, error.message) from None
        except _CHANNEL_ERRORS as error:
            self.close(gently=False)
            raise self._lost(verb, timeout_s, error) from None
        except BaseException:  # Ctrl-C while waiting: the reply would be taken for the next request's
            self.close(gently=False)
            raise

    def push(self, path: Path, sha256: str, suffix: str) -> None:
        """Makes a network available to `load`; costs nothing but a question where the device has it already.

        Args:
            suffix: what the runtime expects the file's name to end in, e.g. `.onnx`.

        Raises:
            WorkerError: "corrupt_artifact" when the file is not what `sha256` says; "no_space" when the device's
                disk is full; "crash" when it cannot be brought there for another reason.
            DeviceLostError: as for `request`.
        """
        if not SHA256.fullmatch(sha256) or not SUFFIX.fullmatch(suffix):
            raise ValueError(f"not a SHA-256 and a suffix: {sha256!r}, {suffix!r}")
        size = path.stat().st_size
        timeout_s = PUT_S + size / HASHED_BYTES_PER_S
        wanted: Mapping[str, Any] = {"sha256": sha256, "size": size, "suffix": suffix}
        if self.request("put", timeout_s, **wanted)["have"]:
            return
        try:
            self._transfer(path, sha256)
        except OSError as error:
            kind = "no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "crash"
            raise WorkerError(kind, f"cannot bring {path.name} to the device: {error.strerror or error}") from error
        except ChannelLostError as error:
            self.close(gently=False)
            raise self._lost("push", timeout_s, error) from None
        if not self.request("put", timeout_s, **wanted)["have"]:
            raise WorkerError("corrupt_artifact", f"{path.name} did not arrive whole")

    def rest(self, seconds: float) -> None:
        """Leaves the device alone for so long."""
        select.select([], [], [], seconds)  # by a span of time, where sleeping is until a moment: clocks may jump

    @property
    def stderr_tail(self) -> str:
        """The last lines that the worker wrote to stderr."""
        return "\n".join([*self._stderr, *([self._stderr_rest] if self._stderr_rest else [])])

    def close(self, *, gently: bool = True) -> None:
        """Ends the worker, which frees the device. More than once is fine."""
        self._open = False
        self._disconnect(gently=gently)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, deadline: Deadline) -> bytes:
        late = False
        while True:
            line = self._lines.pop()
            if line is not None:
                return line
            if late:  # a byte now and then is no reply
                raise ChannelTimeoutError
            late = not deadline.left  # what has come by then still counts
            self._lines.feed(self._receive(deadline))

    def _note_stderr(self, data: bytes) -> None:
        """Keeps the last lines, each of them short."""
        *lines, rest = (self._stderr_rest + data.decode("utf-8", "replace")).split("\n")
        self._stderr.extend(printable(line[:_STDERR_LINE]) for line in lines if line.strip())
        self._stderr_rest = printable(rest[-_STDERR_LINE:])

    def _lost(self, verb: str, timeout_s: float, error: Exception) -> DeviceLostError:
        words = f"; its last words:\n{self.stderr_tail}" if self.stderr_tail else ""
        if isinstance(error, ChannelTimeoutError):
            reason = f"no reply to {verb!r} within {timeout_s:g} s"
            return DeviceLostError(f"device {self.name}: {reason}{words}", timed_out=True)
        if isinstance(error, ChannelLostError):
            return DeviceLostError(f"device {self.name}: {error} during {verb!r}", unreachable=True)
        if isinstance(error, ChannelClosedError):
            return DeviceLostError(f"device {self.name}: the worker {error} during {verb!r}{words}")
        return ProtocolError(f"device {self.name}: broken reply to {verb!r}: {error}{words}")
