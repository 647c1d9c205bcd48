"""A channel of an SSH connection, read and written under deadlines.

paramiko's own timeouts are reckoned on the wall clock, which may jump, and do not watch stdout and stderr together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import paramiko

from latlab.harness.transports.base import ChannelClosedError, ChannelLostError, ChannelTimeoutError, Deadline
from latlab.harness.transports.ssh.session import Session

__all__ = ["Stream"]

_CHUNK = 1 << 18
_DRAINED_CHUNKS = 64
"""Of stderr at a time: there may always be more."""
_FULL_WINDOW_POLL_S = 0.05
"""While the other side takes nothing its stderr must be emptied, for that may be what it waits for."""


class _Wake(threading.Event):
    """Set when a channel has something to read; only the reader clears it, for two buffers share it."""

    def clear(self) -> None:
        """paramiko calls this when one of the buffers is empty."""

    def rearm(self) -> None:
        super().clear()


class Stream:
    """One channel, for one thread at a time.

    Args:
        note_stderr: takes what comes there.
    """

    def __init__(
        self, session: Session, channel: paramiko.Channel, note_stderr: Callable[[bytes], None] = lambda data: None
    ) -> None:
        self._session, self._channel, self._note_stderr = session, channel, note_stderr
        self._wake = _Wake()
        channel.settimeout(0.0)
        for buffer in (channel.in_buffer, channel.in_stderr_buffer):
            buffer.set_event(self._wake)

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Raises `ChannelClosedError`, `ChannelLostError`, or `ChannelTimeoutError` where nobody takes the data."""
        channel = self._channel
        while data:
            try:
                sent = channel.send(data)
            except TimeoutError:  # the window is full
                self.drain_stderr()
                with channel.out_buffer_cv:
                    channel.out_buffer_cv.wait_for(self._takes_data, min(deadline.left, _FULL_WINDOW_POLL_S))
                if not deadline.left:
                    raise ChannelTimeoutError from None
                continue
            except (OSError, EOFError, paramiko.SSHException):  # closed
                sent = 0
            if not sent or not self._session.is_active():
                raise self.end()
            data = data[sent:]

    def receive(self, deadline: Deadline) -> bytes:
        """What comes next, at least one byte; nothing at the end. Raises `ChannelTimeoutError`."""
        channel = self._channel
        while True:
            self._wake.rearm()
            self.drain_stderr()
            if channel.recv_ready():
                return self._read(channel.recv)
            if channel.closed or channel.eof_received:
                return b""
            if not self._wake.wait(deadline.left) or not deadline.left:  # stderr may wake it without end
                raise ChannelTimeoutError

    def drain_stderr(self) -> None:
        for _ in range(_DRAINED_CHUNKS):
            if not self._channel.recv_stderr_ready():
                return
            self._note_stderr(self._read(self._channel.recv_stderr))

    def finish(self) -> None:
        """Nothing more will be sent: the end of the program's input."""
        self._channel.shutdown_write()

    def wait_for_end(self, seconds: float) -> bool:
        """Whether the program ended, as far as one is told; waits for it."""
        deadline = Deadline(seconds)
        while not self._is_over():
            self._wake.rearm()
            self.drain_stderr()
            # The end of the output does not set it again, and an exit status never does.
            if not self._is_over() and not self._wake.wait(min(deadline.left, 0.02)) and not deadline.left:
                return False
        return True

    def end(self, seconds: float = 1.0) -> ChannelClosedError | ChannelLostError:
        """What happened, once the output has ended; waits a little to be told."""
        told = self.wait_for_end(seconds)
        self.drain_stderr()
        if signal := self._session.exit_signal(self._channel.get_id()):
            return ChannelClosedError(f"was killed by SIG{signal}")
        if self._channel.exit_status >= 0:
            return ChannelClosedError(f"ended with exit code {self._channel.exit_status}")
        if not self._session.is_active():
            return ChannelLostError(self._session.why_lost())
        if told:
            return ChannelLostError(f"{self._session.hop} closed the channel without a word on what became of it")
        return ChannelClosedError("closed its output")

    def close(self) -> None:
        self._channel.close()

    def _read(self, receive: Callable[[int], bytes]) -> bytes:
        try:
            return receive(_CHUNK)
        except (OSError, EOFError, paramiko.SSHException):  # acknowledging it failed: the connection has just died
            return b""

    def _takes_data(self) -> bool:
        return self._channel.out_window_size > 0 or self._channel.closed

    def _is_over(self) -> bool:
        channel = self._channel
        return channel.closed or channel.exit_status >= 0 or bool(self._session.exit_signal(channel.get_id()))
