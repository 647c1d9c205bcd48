"""A channel of an SSH connection, read and written with deadlines.

paramiko's own timeouts use the wall clock, which may jump, and do not watch stdout and stderr together.
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
"""Chunks of stderr to read at a time: there may always be more."""
_FULL_WINDOW_POLL_S = 0.05
"""While the other side reads nothing, its stderr is emptied this often: it may wait for exactly that."""


class _Wake(threading.Event):
    """An event that is set when a channel has something to read; only the reader clears it: two buffers share it."""

    def clear(self) -> None:
        """Do nothing: paramiko calls this when one of the two buffers is empty."""

    def rearm(self) -> None:
        """Clear the event, before the reader looks into both buffers."""
        super().clear()


class Stream:
    """A channel that runs one program, for one thread at a time.

    Args:
        session: the login that the channel belongs to.
        channel: paramiko's channel.
        note_stderr: called with each piece of the program's stderr.
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
        """Send all of `data` to the program's stdin.

        Raises:
            ChannelClosedError: the program has ended.
            ChannelLostError: the connection is gone.
            ChannelTimeoutError: the program does not read its stdin.
        """
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
        """Return the next bytes of the program's stdout; none at its end.

        Raises:
            ChannelTimeoutError: nothing came before the deadline.
        """
        channel = self._channel
        while True:
            self._wake.rearm()
            self.drain_stderr()
            if channel.recv_ready():
                return self._read(channel.recv)
            if channel.closed or channel.eof_received:
                return b""
            if not self._wake.wait(deadline.left) or not deadline.left:  # endless stderr may set the event again
                raise ChannelTimeoutError

    def drain_stderr(self) -> None:
        """Hand the stderr that has arrived to `note_stderr`, up to a bound."""
        for _ in range(_DRAINED_CHUNKS):
            if not self._channel.recv_stderr_ready():
                return
            self._note_stderr(self._read(self._channel.recv_stderr))

    def finish(self) -> None:
        """Close the program's stdin."""
        self._channel.shutdown_write()

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for the program to end and return whether it did, as far as the server reports it."""
        deadline = Deadline(seconds)
        while not self._is_over():
            self._wake.rearm()
            self.drain_stderr()
            # The end of the output does not set the event again, and an exit status never does.
            if not self._is_over() and not self._wake.wait(min(deadline.left, 0.02)) and not deadline.left:
                return False
        return True

    def end(self, seconds: float = 1.0) -> ChannelClosedError | ChannelLostError:
        """Return, as an exception, how the program ended; waits up to `seconds` for the server's report."""
        reported = self.wait_for_end(seconds)
        self.drain_stderr()
        if signal := self._session.exit_signal(self._channel.get_id()):
            return ChannelClosedError(f"was killed by SIG{signal}")
        if self._channel.exit_status >= 0:
            return ChannelClosedError(f"ended with exit code {self._channel.exit_status}")
        if not self._session.is_active():
            return ChannelLostError(self._session.why_lost())
        if reported:
            return ChannelLostError(f"{self._session.hop} closed the channel without a word on what became of it")
        return ChannelClosedError("closed its output")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _read(self, receive: Callable[[int], bytes]) -> bytes:
        try:
            return receive(_CHUNK)
        except (OSError, EOFError, paramiko.SSHException):  # the acknowledgement failed: the connection has just died
            return b""

    def _takes_data(self) -> bool:
        return self._channel.out_window_size > 0 or self._channel.closed

    def _is_over(self) -> bool:
        channel = self._channel
        return channel.closed or channel.exit_status >= 0 or bool(self._session.exit_signal(channel.get_id()))
