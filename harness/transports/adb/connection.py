"""A connection to adbd, with streams to its services.

The package adb-shell provides the transports and signs tokens. Its client is not used, because it supports neither a
device's features nor shell protocol 2, has no stream that is read and written in turns, and loses half a message at
each timeout. AOSP describes the protocol in packages/modules/adb: protocol.txt, SYNC.TXT, shell_protocol.h.

A connection is for one thread at a time.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from adb_shell import constants

from latlab.harness.transports.adb.link import Link
from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Deadline

__all__ = ["ADBConnection", "ADBStream", "KeyRefusedError", "ServiceRefusedError", "Signer", "TLSWantedError"]

VERSION = 0x01000001
"""The first version of the protocol without checksums of payloads."""
MAX_PAYLOAD = 1 << 20
"""Most bytes that any adbd accepts in a message; each announces its own limit."""
CONFIRM_S = 20.0
"""Seconds that a person has to confirm the phone's dialog."""
_UNREAD_BYTES = 4 << 20
"""A stream with this many unread bytes acknowledges no more messages until it is read."""
_LATE_MESSAGES = 64
"""Most messages read after a deadline: those that had arrived by then still count, but there may always be more."""
_HEADER = struct.Struct("<6I")
_STLS = struct.unpack("<I", b"STLS")[0]
_ID = constants.ID_TO_WIRE


class KeyRefusedError(Exception):
    """The device does not know the key, and nobody confirmed it on the device in time."""


class TLSWantedError(Exception):
    """The port belongs to Android 11's wireless debugging, which requires a pairing and TLS."""


class ServiceRefusedError(Exception):
    """The device does not offer the service."""


class Signer(NamedTuple):
    """An adb key: a function that signs tokens, and the public half."""

    sign: Callable[[bytes], bytes]
    public_key: bytes


class ADBConnection:
    """Streams over one link.

    Methods raise `ChannelTimeoutError` when their deadline passes, and `ChannelLostError` when the link is gone.

    Args:
        link: a link on which nothing has been sent yet.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._version = constants.VERSION
        self._streams: dict[int, ADBStream] = {}
        self._last_id = 0
        self._pending: tuple[int, ...] | None = None
        self._late = 0
        self.max_payload = constants.MAX_LEGACY_ADB_DATA
        self.features: frozenset[str] = frozenset()

    @property
    def lost(self) -> bool:
        """True if nothing more can be sent or received."""
        return self._link.lost

    def log_in(self, signer: Callable[[], Signer], deadline: Deadline) -> None:
        """Greet the device and sign the token that it may ask to have signed.

        Args:
            signer: called if the device asks for a signature; its exceptions pass through.
            deadline: for the device to answer; a person who confirms the key has `CONFIRM_S` longer.

        Raises:
            KeyRefusedError: the device does not accept the key.
            TLSWantedError: the port requires TLS.
        """
        self._send(_ID[constants.CNXN], VERSION, MAX_PAYLOAD, b"host::features=shell_v2\0", deadline)
        key: Signer | None = None
        asked = False
        while True:
            try:
                command, kind, _, payload = message = self._next(deadline)
            except (ChannelTimeoutError, ChannelLostError):
                if key is None:
                    raise
                raise KeyRefusedError from None
            if command == _ID[constants.CNXN]:
                return self._read_banner(message)
            if command == _STLS:
                raise TLSWantedError
            if command != _ID[constants.AUTH] or kind != constants.AUTH_TOKEN:
                continue
            if key is None:
                key = signer()
                self._send(command, constants.AUTH_SIGNATURE, 0, key.sign(payload), deadline)
            elif not asked:  # the device does not know the key; sent the public half, it asks its user
                asked = True
                deadline = Deadline(CONFIRM_S)
                self._send(command, constants.AUTH_RSAPUBLICKEY, 0, key.public_key + b"\0", deadline)

    def open(self, service: str, deadline: Deadline) -> ADBStream:
        """Open a stream to a service of adbd.

        Raises:
            ServiceRefusedError: the device does not offer it.
        """
        self._last_id += 1
        stream = self._streams[self._last_id] = ADBStream(self, self._last_id)
        name = service.encode() + b"\0"
        name += b"\0" * (len(self._link.piece(memoryview(name), len(name))) != len(name))
        self._send(_ID[constants.OPEN], stream.id, 0, name, deadline)
        while not stream.ready and not stream.closed:
            self.pump(deadline)
        if stream.closed:
            raise ServiceRefusedError(service.partition(":")[0])
        return stream

    def close(self) -> None:
        """Close the link, and with it all streams."""
        self._link.close()

    def pump(self, deadline: Deadline) -> None:
        """Receive one message and hand it to its stream."""
        command, theirs, ours, payload = self._next(deadline)
        stream = self._streams.get(ours)
        if command == _ID[constants.WRTE]:
            if stream is None:
                self._send(_ID[constants.CLSE], ours, theirs, b"", deadline)
            else:
                stream.take(payload, deadline)
        elif stream is None:
            pass
        elif command == _ID[constants.OKAY]:
            stream.remote, stream.ready = theirs, True
        elif command == _ID[constants.CLSE]:
            stream.closed = True
            self._forget(stream, deadline)

    def send_data(self, stream: ADBStream, data: memoryview, deadline: Deadline) -> int:
        """Send as much of `data` as fits into a message and return the number of bytes."""
        piece = self._link.piece(data, self.max_payload)
        self._send(_ID[constants.WRTE], stream.id, stream.remote, piece, deadline)
        return len(piece)

    def acknowledge(self, stream: ADBStream, deadline: Deadline) -> None:
        """Acknowledge a stream's last message, upon which the device sends the next one."""
        self._send(_ID[constants.OKAY], stream.id, stream.remote, b"", deadline)

    def close_stream(self, stream: ADBStream, deadline: Deadline) -> None:
        """Close a stream, unless the device has closed it."""
        if not stream.closed and not self.lost:
            self._forget(stream, deadline)
        stream.closed = True

    def _forget(self, stream: ADBStream, deadline: Deadline) -> None:
        del self._streams[stream.id]
        self._send(_ID[constants.CLSE], stream.id, stream.remote, b"", deadline)

    def _read_banner(self, message: tuple[int, int, int, bytes]) -> None:
        _, version, payload, banner = message
        self._version = min(VERSION, version)
        self.max_payload = max(1, min(MAX_PAYLOAD, payload))
        for part in banner.rstrip(b"\0").decode("utf-8", "replace").split(":", 2)[-1].split(";"):
            name, _, value = part.partition("=")
            if name == "features":
                self.features = frozenset(value.split(","))

    def _send(self, command: int, first: int, second: int, payload: bytes | memoryview, deadline: Deadline) -> None:
        check = sum(payload) & 0xFFFFFFFF if self._version < VERSION else 0
        header = _HEADER.pack(command, first, second, len(payload), check, command ^ 0xFFFFFFFF)
        self._link.write(header, payload, deadline)

    def _next(self, deadline: Deadline) -> tuple[int, int, int, bytes]:
        self._late = 0 if deadline.left else self._late + 1
        if self._late > _LATE_MESSAGES:
            raise ChannelTimeoutError
        # A deadline may pass between the header and the payload: the header is kept for the next call.
        if self._pending is None:
            self._pending = _HEADER.unpack(self._link.read(_HEADER.size, deadline))
        command, first, second, length, check, magic = self._pending
        if magic != command ^ 0xFFFFFFFF or length > MAX_PAYLOAD:
            self._link.close()
            raise ChannelLostError("what answers there does not speak adb's protocol")
        payload = self._link.read(length, deadline)
        self._pending = None
        if self._version < VERSION and command == _ID[constants.WRTE] and sum(payload) != check:
            self._link.close()
            raise ChannelLostError("a message came with a wrong checksum")
        return command, first, second, payload


class ADBStream:
    """A stream of bytes to and from one service."""

    def __init__(self, connection: ADBConnection, number: int) -> None:
        self.id = number
        self.remote = 0
        self.ready = False
        """True if the device has acknowledged the last message."""
        self.closed = False
        """True if nothing will arrive after what is still unread."""
        self._connection = connection
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._unacknowledged = False

    @property
    def waiting(self) -> bool:
        """True if `read` would return at once."""
        return bool(self._unread)

    def read(self, deadline: Deadline) -> bytes:
        """Return the next bytes; none at the end of the stream."""
        while not self._unread:
            if self.closed:
                return b""
            self._connection.pump(deadline)
        data = self._unread.popleft()
        self._unread_bytes -= len(data)
        if self._unacknowledged and not self.closed:
            self._unacknowledged = False
            self._connection.acknowledge(self, deadline)
        return data

    def write(self, data: bytes | bytearray | memoryview, deadline: Deadline) -> None:
        """Send `data`; return when the device has acknowledged all messages but the last.

        Once the device has closed the stream, this does nothing.
        """
        rest = memoryview(data)
        while len(rest):
            while not self.ready:
                if self.closed:
                    return
                self._connection.pump(deadline)
            self.ready = False
            rest = rest[self._connection.send_data(self, rest, deadline) :]

    def close(self, deadline: Deadline) -> None:
        """Close the stream."""
        self._connection.close_stream(self, deadline)

    def take(self, data: bytes, deadline: Deadline) -> None:
        """Store the payload of a message; the connection calls this."""
        if data:
            self._unread.append(data)
            self._unread_bytes += len(data)
        if self._unread_bytes > _UNREAD_BYTES + MAX_PAYLOAD:
            self._connection.close()
            raise ChannelLostError("adbd sends more than it was asked for")
        # The device sends the next message when this one is acknowledged. It is acknowledged although nobody reads,
        # because both sides may be writing: each would wait for the other for ever.
        if self._unread_bytes < _UNREAD_BYTES:
            self._connection.acknowledge(self, deadline)
        else:
            self._unacknowledged = True
