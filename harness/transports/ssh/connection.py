"""The SSH connection to a device, directly or over jump hosts, and the thread that notices its loss."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import paramiko

from latlab.harness.text import printable
from latlab.harness.transports.base import ChannelLostError, Deadline
from latlab.harness.transports.ssh.route import Hop, StepError
from latlab.harness.transports.ssh.session import Session
from latlab.harness.transports.ssh.stream import Stream

__all__ = ["Connection"]

REACH_S = 8.0
"""Seconds for a TCP connection to one address."""
PULSES = 4
"""Requests for a sign of life within `patience_s`."""
_JOIN_S = 0.5


class Connection:
    """A login on a device, through the logins on all jump hosts before it.

    A peer that is silent for `patience_s` seconds, although it was asked for a sign of life, counts as lost, and
    everything that waits for it fails at once. TCP alone is not enough: its timers notice neither a server that hangs
    nor a loss behind a jump host. paramiko's keepalive notices nothing, since it waits for no reply.

    Args:
        hops: the machines to log in to, nearest first; the device is the last.
        patience_s: seconds of silence after which the device counts as lost.
    """

    def __init__(self, hops: list[Hop], patience_s: float) -> None:
        self._hops = hops
        self._patience_s = patience_s
        self._sessions: list[Session] = []
        self._watch: _Watch | None = None

    def open(self) -> None:
        """Connect and log in on every hop. Call `close` in any case.

        Raises:
            StepError: a step failed.
        """
        session: Session | None = None
        for hop in self._hops:
            sock = _connect_through(session, hop) if session else _connect_tcp(hop, self._patience_s)
            session = Session(hop, sock)
            self._sessions.append(session)
            session.open()
        self._watch = _Watch(self._sessions, self._patience_s, self._give_up)
        self._watch.start()

    @property
    def hop(self) -> Hop:
        """The device itself."""
        return self._hops[-1]

    @property
    def is_active(self) -> bool:
        """True while the connection to the device stands, as far as is known."""
        return bool(self._sessions) and self._sessions[-1].is_active()

    def run(
        self, command: str, note_stderr: Callable[[bytes], None] = lambda data: None, *, subsystem: bool = False
    ) -> Stream:
        """Start a program on the device.

        Args:
            command: a command for the login shell there, or the name of a subsystem.
            note_stderr: called with each piece of the program's stderr.
            subsystem: `command` is the name of a subsystem.

        Raises:
            ChannelLostError: the connection is gone, or the server refuses.
        """
        sessions = self._sessions
        if not sessions:  # closed by another thread
            raise ChannelLostError(f"the SSH connection to {self.hop} was closed")
        session = sessions[-1]
        try:
            channel = session.channel()
            stream = Stream(session, channel, note_stderr)
            if subsystem:
                channel.invoke_subsystem(command)
            else:
                channel.exec_command(command.encode("utf-8", "surrogateescape"))
        except (paramiko.SSHException, EOFError, OSError) as error:
            if session.is_active():
                problem = f"{self.hop} refuses to run {command.split()[0]!r} ({error})"
                raise ChannelLostError(printable(problem)) from error
            raise ChannelLostError(session.why_lost()) from error
        return stream

    def output(self, command: str, seconds: float) -> str:
        """Run a short command and return what it prints on stdout.

        Raises:
            ChannelLostError: the connection is gone, or the server refuses.
            ChannelTimeoutError: the command did not end within `seconds`.
        """
        stream, deadline, printed = self.run(command), Deadline(seconds), b""
        try:
            while data := stream.receive(deadline):
                printed += data
        finally:
            stream.close()
        return printed.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the connection at once, in whatever state it is. A second call does nothing."""
        if self._watch:
            self._watch.stop()
        self._give_up(None)
        for session in self._sessions:
            session.join(_JOIN_S)
        self._sessions, self._watch = [], None

    def _give_up(self, reason: str | None) -> None:
        """Close all sessions, nearest first: messages to a machine behind a dead hop would block."""
        if reason:  # to all first: a thread that waits for the device wakes up as soon as a hop before it is closed
            for session in self._sessions:
                session.give_reason(reason)
        for session in self._sessions:
            session.abort()


class _Watch(threading.Thread):
    """The thread that asks the device for signs of life and gives the connection up when none come."""

    def __init__(self, sessions: list[Session], patience_s: float, give_up: Callable[[str | None], None]) -> None:
        super().__init__(name=f"watch over {sessions[-1].hop}", daemon=True)
        self._sessions, self._patience_s, self._give_up = list(sessions), patience_s, give_up
        self._stopped = threading.Event()

    def run(self) -> None:
        far, pause = self._sessions[-1], self._patience_s / PULSES
        silent_s, looked = 0.0, time.monotonic()
        while not self._stopped.wait(min(pause, self._patience_s - silent_s)):
            now = time.monotonic()
            if far.heard >= looked:
                silent_s = now - far.heard
            else:
                silent_s += min(now - looked, 2 * pause)  # any longer pause is time that this process was stopped
            looked = now
            if silent_s >= self._patience_s:
                return self._give_up(f"no sign of life from {far.hop} for {silent_s:.1f} s")
            if not far.is_active():
                return None
            # Sent only if that does not block: a connection that takes no data would stop this thread as well.
            if silent_s >= pause / 2 and all(session.can_send() for session in self._sessions):
                with suppress(EOFError, OSError, paramiko.SSHException):
                    far.ask_for_life()
        return None

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self is not threading.current_thread() and self.is_alive():
            self.join(_JOIN_S)


def _connect_through(gate: Session, hop: Hop) -> paramiko.Channel:
    try:
        return gate.channel(hop)
    except paramiko.ChannelException as error:
        forbidden = error.code == 1
        raise StepError(
            "network",
            f"the jump host {gate.hop} {'does not forward connections' if forbidden else f'cannot reach {hop}'}"
            f" ({error.text})",
            "Set `AllowTcpForwarding yes` in its sshd_config."
            if forbidden
            else "Is the device on, and its name right as seen from the jump host?",
            lasting=forbidden,
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise StepError("network", f"no way through the jump host {gate.hop} to {hop}: {error}") from error


def _connect_tcp(hop: Hop, patience_s: float) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise StepError(
            "address",
            f"the address of {hop.host} cannot be found: {getattr(error, 'strerror', None) or error}",
            "Is it spelled right, in DNS or in ~/.ssh/config? A device that is off may be missing from mDNS (.local).",
        ) from error
    failure = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(REACH_S)
            sock.connect(address)
            _set_socket_options(sock, patience_s)
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if isinstance(failure, ConnectionRefusedError):
        raise StepError(
            "network",
            f"{hop.host} takes no connections at port {hop.port}",
            "Is its SSH server running? On the device: sudo systemctl enable --now ssh",
        ) from failure
    reason = f"no answer within {REACH_S:g} s" if isinstance(failure, TimeoutError) else failure.strerror or failure
    raise StepError(
        "network",
        f"{hop.host} port {hop.port} cannot be reached: {reason}",
        "Is it switched on, and on this network?",
    ) from failure


def _set_socket_options(sock: socket.socket, patience_s: float) -> None:
    """Send small messages at once, and let TCP as well notice a cut cable within `patience_s`."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        seconds = max(1, round(patience_s / PULSES))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PULSES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(patience_s * 1000))
    os.set_inheritable(sock.fileno(), False)
