"""A gate that asks a computer for its key before it lets it through to a phone, since Debian's adbd does not ask.

The exchange is that of the ADB protocol (docs/dev/protocol.md in Android's adb): the phone sends 20 random bytes, the
computer signs them; a computer whose signature is of no key that the phone knows offers its public key, and then the
phone shows a dialog to its user. Here nobody answers the dialog.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
from contextlib import suppress

from .phone import Phone

_HEADER = struct.Struct("<4s5I")
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3
_KEY_BYTES = 256
_SHA1_PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")
"""The prefix of a PKCS #1 v1.5 signature over a SHA-1 hash, which the token is taken for (RFC 8017, 9.2)."""


class AuthGate:
    """A server that lets computers with an authorised key through to a phone, and refuses all others.

    Args:
        address: of this machine, to listen on.
        phone: who they are let through to; without one, nobody is.
    """

    def __init__(self, address: str, phone: Phone | None = None) -> None:
        self.address = address
        self.keys: list[str] = []
        """Authorised keys, as in adbkey.pub; a test may add some at any time."""
        self.offered: list[str] = []
        """Public keys that the user was asked about."""
        self._phone = phone
        self._listener = socket.create_server((address, 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for connection in (self._listener, *self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes up whoever reads from it
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            greeting = _receive(connection)
            token = os.urandom(20)
            _send(connection, b"AUTH", _TOKEN, 0, token)
            while True:
                _, kind, _, payload = _receive(connection)
                if kind == _SIGNATURE and self._phone and any(_is_signed(token, payload, key) for key in self.keys):
                    return self._let_in(connection, self._phone, greeting)
                if kind == _SIGNATURE:
                    token = os.urandom(20)
                    _send(connection, b"AUTH", _TOKEN, 0, token)
                elif kind == _PUBLIC_KEY:
                    self.offered.append(payload.rstrip(b"\0").decode())

    def _let_in(self, connection: socket.socket, phone: Phone, greeting: tuple[bytes, int, int, bytes]) -> None:
        with socket.create_connection((phone.address, phone.port)) as daemon:
            self._connections.append(daemon)
            for end in (connection, daemon):  # as adbd has it: each of the many small messages goes out at once
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _send(daemon, *greeting)
            threading.Thread(target=_copy, args=(daemon, connection), daemon=True).start()
            _copy(connection, daemon)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _is_signed(token: bytes, signature: bytes, key: str) -> bool:
    """Return whether a key, in Android's format (words, n', n, r², e), belongs to the signature's private key."""
    fields = base64.b64decode(key.split()[0])
    modulus = int.from_bytes(fields[8 : 8 + _KEY_BYTES], "little")
    exponent = int.from_bytes(fields[-4:], "little")
    message = _SHA1_PREFIX + token
    padded = b"\0\1" + b"\xff" * (_KEY_BYTES - len(message) - 3) + b"\0" + message
    return pow(int.from_bytes(signature, "big"), exponent, modulus) == int.from_bytes(padded, "big")


def _receive(connection: socket.socket) -> tuple[bytes, int, int, bytes]:
    command, first, second, length, _, _ = _HEADER.unpack(_read(connection, _HEADER.size))
    return command, first, second, _read(connection, length)


def _read(connection: socket.socket, length: int) -> bytes:
    data = connection.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise ConnectionError("closed in the middle of a message")
    return data


def _send(connection: socket.socket, command: bytes, first: int, second: int, payload: bytes) -> None:
    magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
    connection.sendall(_HEADER.pack(command, first, second, len(payload), sum(payload), magic) + payload)
