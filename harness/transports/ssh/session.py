"""One login: paramiko's connection over a socket or through another login.

It adds to paramiko: deadlines in every phase of connecting, a strict check of the host key, the time when something
last arrived, the signal that killed a program (which paramiko drops), and errors that name what is wrong.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from contextlib import suppress

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST, cMSG_GLOBAL_REQUEST
from paramiko.message import Message
from paramiko.packet import Packetizer

from latlab.harness.transports.ssh.auth import log_in
from latlab.harness.transports.ssh.known_hosts import check_host_key, read_known_hosts
from latlab.harness.transports.ssh.route import Hop, StepError

__all__ = ["CHANNEL_S", "Session"]

GREET_S = 8.0
"""Seconds to wait for a server's first line: something may accept connections and never send one."""
AGREE_S = 20.0
"""Seconds for the key exchange: it takes under 0.1 s, but some seconds on the smallest boards."""
LOGIN_S = 30.0
"""Seconds to try one key: an agent may ask a person."""
CHANNEL_S = 15.0
"""Seconds for the server to open a channel."""
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""GCM first: it is authenticated, and the fastest with paramiko. CBC, which paramiko would accept, is left out."""
_DIGESTS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

# Without this paramiko writes tracebacks to stderr; what matters in them is in latlab's own errors.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


class _Packets(Packetizer):
    """A packet reader that records when the last packet came, and the signals that killed programs."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.heard = time.monotonic()
        self.signals: dict[int, str] = {}

    def read_message(self) -> tuple[int, Message]:
        kind, message = super().read_message()
        self.heard = time.monotonic()
        if kind == MSG_CHANNEL_REQUEST:
            channel, request = message.get_int(), message.get_text()
            if request == "exit-signal":
                message.get_boolean()
                self.signals[channel] = "".join(filter(str.isalnum, message.get_text()))[:16]
            message.rewind()
        return kind, message

    def close(self) -> None:
        self.complete_handshake()  # otherwise the thread of its timer lives on and keeps the process from ending
        super().close()


class Session:
    """A connection to one machine, logged in once `open` has returned.

    Args:
        hop: the machine and the login.
        sock: a connected socket, or a channel through another session. It is closed with the session.
    """

    def __init__(self, hop: Hop, sock: socket.socket | paramiko.Channel) -> None:
        self.hop = hop
        self._sock = sock
        self._lost_reason: str | None = None
        self._transport = paramiko.Transport(sock, packetizer_class=_Packets)
        self._transport.name = f"ssh {hop}"
        self._transport.banner_timeout = GREET_S
        self._transport.handshake_timeout = AGREE_S
        self._transport.auth_timeout = LOGIN_S
        options = self._transport.get_security_options()
        options.ciphers, options.digests = _CIPHERS, _DIGESTS

    def open(self) -> None:
        """Agree on keys, check the host key and log in.

        Raises:
            StepError: one of these failed.
        """
        transport = self._transport
        known = read_known_hosts(self.hop.known_hosts, self.hop.known_as)
        options = transport.get_security_options()
        # A server has keys of several types: prefer a type whose key is known.
        types = {name for entry in known for name in _algorithms(entry.key_type)}
        options.key_types = sorted(options.key_types, key=lambda name: name not in types)
        started = time.monotonic()
        try:
            transport.start_client(timeout=GREET_S + AGREE_S)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._handshake_error(error, time.monotonic() - started) from error
        if not transport.initial_kex_done or (key := transport.host_key) is None:
            raise self._handshake_error(TimeoutError(), time.monotonic() - started)
        check_host_key(self.hop, known, key.get_name(), key.asbytes())
        log_in(transport, self.hop)

    @property
    def heard(self) -> float:
        """Seconds on the monotonic clock when the last packet came from the other side."""
        packets = self._transport.packetizer
        assert isinstance(packets, _Packets)
        return packets.heard

    def exit_signal(self, channel: int) -> str:
        """Return the name, without SIG, of the signal that ended the program of a channel; "" where none did."""
        packets = self._transport.packetizer
        assert isinstance(packets, _Packets)
        return packets.signals.get(channel, "")

    def is_active(self) -> bool:
        """Return whether the connection still stands, as far as is known."""
        return self._transport.is_active()

    def why_lost(self) -> str:
        """Return why the session is no longer active."""
        if self._lost_reason:
            return self._lost_reason
        error = self._transport.saved_exception
        detail = error.strerror if isinstance(error, OSError) and error.strerror else "closed by the other side"
        return f"the SSH connection to {self.hop} is gone ({detail[0].lower()}{detail[1:]})"

    def channel(self, destination: Hop | None = None) -> paramiko.Channel:
        """Open a channel for a program, or a connection from there to another machine.

        Raises:
            paramiko.SSHException: the server refuses, or the connection is gone.
            OSError: the connection is gone.
        """
        if destination is None:
            return self._transport.open_session(timeout=CHANNEL_S)
        address = (destination.host, destination.port)
        return self._transport.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=CHANNEL_S)

    def can_send(self) -> bool:
        """Return whether a small message can be sent without waiting."""
        if isinstance(self._sock, paramiko.Channel):
            return self._sock.send_ready()
        poll = select.poll()
        try:
            poll.register(self._sock, select.POLLOUT)
            return bool(poll.poll(0))
        except (OSError, ValueError):  # closed
            return False

    def ask_for_life(self) -> None:
        """Send a request that every server answers, if only with a refusal; nothing while another thread is sending."""
        transport = self._transport
        if not transport.clear_to_send_lock.acquire(blocking=False):
            return
        try:
            if transport.clear_to_send.is_set() and transport.is_active():
                message = Message()
                message.add_byte(cMSG_GLOBAL_REQUEST)
                message.add_string("keepalive@openssh.com")
                message.add_boolean(True)
                transport.packetizer.send_message(message)
        finally:
            transport.clear_to_send_lock.release()

    def give_reason(self, reason: str) -> None:
        """Record the reason that `why_lost` returns; the first one counts."""
        self._lost_reason = self._lost_reason or reason

    def abort(self) -> None:
        """Close the connection at once, whatever other threads do with it."""
        if isinstance(self._sock, socket.socket):
            with suppress(OSError):  # no longer connected
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads; `close` alone does not
            self._sock.close()
        self._transport.packetizer.close()
        self._transport.close()

    def join(self, seconds: float) -> None:
        """Wait up to `seconds` for the connection's thread to end."""
        if self._transport.is_alive():
            self._transport.join(seconds)

    def _handshake_error(self, error: Exception, seconds: float) -> StepError:
        if not self._transport.remote_version:
            if seconds >= GREET_S:
                problem = f"takes connections, but said nothing within {GREET_S:g} s"
            elif "Indecipherable" in str(error):
                problem = "does not speak SSH"
            else:
                problem = "hung up before it said anything"
            return StepError(
                "network", f"{self.hop} {problem}", "Is that the SSH server's port? Is the machine overloaded?"
            )
        if "Incompatible" in str(error) or "no acceptable" in str(error):
            return StepError(
                "network",
                f"{self.hop} and latlab have no algorithm in common: {error}",
                "Its SSH server is too old, or its configuration too narrow.",
                lasting=True,
            )
        reason = str(error) or ("no answer" if seconds >= AGREE_S else "it hung up")
        return StepError("network", f"no keys could be agreed on with {self.hop}: {reason}")


def _algorithms(key_type: str) -> tuple[str, ...]:
    """Return the signature algorithms with which a server may offer a host key of this type."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)
