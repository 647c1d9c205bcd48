"""The way to a device by SSH, over jump hosts or not, and the watch over it."""

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
"""For a TCP connection to one address."""
PULSES = 4
"""Within the patience."""
_JOIN_S = 0.5


class Connection:
    """A login on a device, through as many other logins as it takes.

    A peer that is silent for `patience_s` seconds, although it was asked for a sign of life, counts as lost: then
    whatever waits for it fails at once. TCP alone would not do. Its timers see neither a server that hangs, nor what
    lies behind a jump host; paramiko's keepalive sees nothing at all, since it waits for no answer.
    """

    def __init__(self, hops: list[Hop], patience_s: float) -> None:
        self._hops = hops
        self._patience_s = patience_s
        self._sessions: list[Session] = []
        self._watch: _Watch | None = None

    def open(self) -> None:
        """Raises `StepError`; `close` is to be called all the same."""
        for hop in self._hops:
            sock = self._through(hop) if self._sessions else _reach(hop, self._patience_s)
            session = Session(hop, sock)
            self._sessions.append(session)
            session.open()
        self._watch = _Watch(self._sessions, self._patience_s, self._give_up)
        self._watch.start()

    @property
    def hop(self) -> Hop:
        return self._hops[-1]

    @property
    def is_active(self) -> bool:
        return bool(self._sessions) and self._sessions[-1].is_active()

    def run(
        self, command: str, note_stderr: Callable[[bytes], None] = lambda data: None, *, subsystem: bool = False
    ) -> Stream:
        """Starts a program on the device.

        Args:
            command: for the login shell there; or the name of a subsystem.

        Raises:
            ChannelLostError: the way is gone, or the server refuses.
        """
        session = self._sessions[-1]
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
        """What a short command prints. Raises `ChannelLostError` or `ChannelTimeoutError`."""
        stream, deadline, printed = self.run(command), Deadline(seconds), b""
        try:
            while data := stream.receive(deadline):
                printed += data
        finally:
            stream.close()
        return printed.decode("utf-8", "replace")

    def close(self) -> None:
        """At once, in whatever state the connection is. More than once is fine."""
        if self._watch:
            self._watch.stop()
        self._give_up(None)
        for session in self._sessions:
            session.join(_JOIN_S)
        self._sessions, self._watch = [], None

    def _give_up(self, reason: str | None) -> None:
        """Closes everything, from this end of the way: messages to what is behind a dead hop would get stuck."""
        if reason:  # to all first: who waits for the far end wakes up as soon as a hop before it is closed
            for session in self._sessions:
                session.give_reason(reason)
        for session in self._sessions:
            session.abort()

    def _through(self, hop: Hop) -> paramiko.Channel:
        gate = self._sessions[-1]
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


class _Watch(threading.Thread):
    """Asks the far end for signs of life, and tells when they fail to come."""

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
                silent_s += min(now - looked, 2 * pause)  # more would be time that this process itself was stopped
            looked = now
            if silent_s >= self._patience_s:
                return self._give_up(f"no sign of life from {far.hop} for {silent_s:.1f} s")
            if not far.is_active():
                return None
            # Sent without waiting, or else a connection that takes nothing would stop the watch as well.
            if silent_s >= pause / 2 and all(session.can_send() for session in self._sessions):
                with suppress(EOFError, OSError, paramiko.SSHException):
                    far.ask_for_life()
        return None

    def stop(self) -> None:
        self._stopped.set()
        if self is not threading.current_thread() and self.is_alive():
            self.join(_JOIN_S)


def _reach(hop: Hop, patience_s: float) -> socket.socket:
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
            _tune(sock, patience_s)
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


def _tune(sock: socket.socket, patience_s: float) -> None:
    """Small messages go out at once, and a cut cable is noticed within the patience, by TCP as well."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        seconds = max(1, round(patience_s / PULSES))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PULSES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(patience_s * 1000))
    os.set_inheritable(sock.fileno(), False)
