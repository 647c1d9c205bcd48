"""The base class of transports: a channel to one worker on one device, and a way to bring files there.

A new transport implements five small hooks. Requests, deadlines, the checks of replies and the errors about a lost
device are the same for all, and so is the conformance suite in tests/harness/transports.
"""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from latlab.agents.protocol.errors import DISK_FULL, AgentError
from latlab.agents.protocol.messages import SHA256, SUFFIX, LineBuffer, LineTooLongError, encode
from latlab.harness.text import plain, printable
from latlab.harness.transports.reply_validation import BrokenReplyError, check_reply

__all__ = ["ConnectError", "Deadline", "DeviceLostError", "ProtocolError", "Transport", "WorkerError"]

PUT_S = 60.0
"""Seconds that a `put` may take, apart from the time for hashing."""
HASHED_BYTES_PER_S = 10e6
"""Bytes per second that the slowest device imagined hashes."""
_STDERR_LINES = 20
_STDERR_LINE_CHARACTERS = 500


class WorkerError(Exception):
    """The worker could not do what it was asked for, and still runs.

    Args:
        kind: one of `latlab.agents.protocol.errors.KINDS`.
        message: the worker's own words.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        self.message = plain(message)
        super().__init__(self.message)


class DeviceLostError(Exception):
    """The worker is gone or silent; the message names the device, the reason and the worker's last words.

    What it was doing is lost; `Transport.start` starts a new worker.

    Args:
        message: names the device, the reason and the worker's last words.
        timed_out: the loss is that a deadline passed.
        unreachable: the connection to the device is gone.
    """

    def __init__(self, message: str, *, timed_out: bool = False, unreachable: bool = False) -> None:
        self.message = plain(message)
        super().__init__(self.message)
        self.timed_out = timed_out
        """True if a deadline passed, False if the worker died."""
        self.unreachable = unreachable
        """True if the connection to the device is gone, and not the worker alone: no network can be the cause."""


class ConnectError(DeviceLostError):
    """The device cannot be reached, or refuses the login.

    Args:
        step: the one of `Transport.STEPS` that failed; the steps before it succeeded.
        advice: what a person can do about it.
        lasting: a retry is useless until a person has done that (a wrong host key, a refused key).
    """

    def __init__(self, message: str, *, step: str, advice: str = "", lasting: bool = False) -> None:
        super().__init__(message, unreachable=True)
        self.step, self.advice, self.lasting = step, advice, lasting


class ProtocolError(DeviceLostError):
    """The worker broke the protocol. Nothing else that it sends can be trusted, so it was ended."""


class Deadline:
    """A moment on the monotonic clock, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline; 0 once it has passed."""
        return max(0.0, self._at - time.monotonic())


class ChannelClosedError(Exception):
    """A hook found that the worker is gone; the message continues "the worker ..." and says how it ended."""


class ChannelLostError(Exception):
    """A hook found that the connection to the device is gone; the message says how that was noticed."""


class ChannelTimeoutError(Exception):
    """The deadline of a hook passed."""


_CHANNEL_ERRORS = (ChannelClosedError, ChannelLostError, ChannelTimeoutError, BrokenReplyError, LineTooLongError)


class Transport(ABC):
    """A channel from one controller to one worker, for one thread at a time; a context manager that starts and closes.

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
    """Names of the steps of `_connect`, in order, as a person reads them: ("network", "host key", "login")."""

    @abstractmethod
    def _connect(self) -> None:
        """Bring the worker's program to the device and start it.

        Raises:
            ConnectError: naming the step that failed.
        """

    @abstractmethod
    def _send(self, data: bytes, deadline: Deadline) -> None:
        """Write all of `data` to the worker's stdin.

        Raises:
            ChannelClosedError: the worker is gone.
            ChannelLostError: the connection to the device is gone.
            ChannelTimeoutError: the deadline passed.
        """

    @abstractmethod
    def _receive(self, deadline: Deadline) -> bytes:
        """Return the next bytes of the worker's stdout, at least one, and hand its stderr to `_note_stderr`.

        Raises:
            ChannelClosedError: the worker is gone.
            ChannelLostError: the connection to the device is gone.
            ChannelTimeoutError: the deadline passed.
        """

    @abstractmethod
    def _transfer(self, path: Path, sha256: str) -> None:
        """Copy a file to `incoming/<sha256>` in the work folder.

        An interrupted copy may leave a part behind: `push` has the worker check the hash afterwards.

        Raises:
            OSError: the device refuses it (`errno.ENOSPC`: its disk is full).
            ChannelLostError: the connection to the device is gone.
        """

    @abstractmethod
    def _disconnect(self, *, gently: bool) -> None:
        """End the worker and free the channel; a second call does nothing.

        Args:
            gently: let the worker end by itself first, for about a second.
        """

    # What all transports do

    def start(self) -> None:
        """Start the worker; the first request to it is a `hello`.

        Raises:
            ConnectError: the device cannot be reached, or the worker does not start.
        """
        self.close()
        self._lines = LineBuffer()
        self._stderr.clear()
        self._stderr_rest = ""
        self._connect()
        self._open = True

    def request(self, verb: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Send a request to the worker and wait for its reply.

        Args:
            verb: what is asked for ("hello", "put", "load", "time", ...).
            timeout_s: seconds that sending and waiting may take together.
            fields: the request's other fields.

        Returns:
            The reply's fields, checked.

        Raises:
            WorkerError: the worker reports why it cannot do it; it still runs.
            DeviceLostError: no reply within `timeout_s`, or the worker is gone.
            ProtocolError: what came is not a reply to this request.
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
        except BaseException:  # Ctrl-C while waiting: the reply that still comes would be taken for the next one
            self.close(gently=False)
            raise

    def push(self, path: Path, sha256: str, suffix: str) -> None:
        """Make a model file available to `load`; where the device has it already, this costs one request.

        Args:
            path: the file, on this machine.
            sha256: its hash, as 64 hexadecimal digits.
            suffix: the ending of file names that the runtime expects, e.g. `.onnx`.

        Raises:
            WorkerError: "corrupt_artifact" when the file that arrived has another hash; "no_space" when the
                device's disk is full; "crash" when the file cannot be copied for another reason.
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
            kind = "no_space" if error.errno in DISK_FULL else "crash"
            raise WorkerError(kind, f"cannot bring {path.name} to the device: {error.strerror or error}") from error
        except ChannelLostError as error:
            self.close(gently=False)
            raise self._lost("push", timeout_s, error) from None
        if not self.request("put", timeout_s, **wanted)["have"]:
            raise WorkerError("corrupt_artifact", f"{path.name} did not arrive whole")

    def rest(self, seconds: float) -> None:
        """Wait for so many seconds, in which the device cools down."""
        select.select([], [], [], seconds)  # not `time.sleep`, which waits for a moment on a clock that may jump

    @property
    def stderr_tail(self) -> str:
        """The last lines that the worker wrote to stderr."""
        return "\n".join([*self._stderr, *([self._stderr_rest] if self._stderr_rest else [])])

    def close(self, *, gently: bool = True) -> None:
        """End the worker, which frees the device. A second call does nothing.

        Args:
            gently: let the worker end by itself first, for about a second.
        """
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
            if late:  # a byte now and then does not make a reply
                raise ChannelTimeoutError
            late = not deadline.left  # what had arrived by the deadline still counts
            self._lines.feed(self._receive(deadline))

    def _note_stderr(self, data: bytes) -> None:
        """Keep the last lines of stderr, each shortened."""
        *lines, rest = (self._stderr_rest + data.decode("utf-8", "replace")).split("\n")
        self._stderr.extend(printable(line[:_STDERR_LINE_CHARACTERS]) for line in lines if line.strip())
        self._stderr_rest = printable(rest[-_STDERR_LINE_CHARACTERS:])

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
