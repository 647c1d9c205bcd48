"""A connection to adbd: streams to its services, a shell with exit status, and fast pushes.

adb-shell gives the transports and the signing of tokens. The protocol is spoken here, because its own client
knows neither the features of a device nor shell protocol 2, has no stream that is read and written in turns,
and loses half a message at each timeout. AOSP describes what goes over the wire in packages/modules/adb:
protocol.txt, SYNC.TXT, shell_protocol.h.

A connection is for one thread.
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
"""The first that does without checksums over payloads."""
MAX_PAYLOAD = 1 << 20
"""The most that any adbd takes in a message; it says itself how much it takes."""
CONFIRM_S = 20.0
"""How long somebody has for the phone's dialog."""
_UNREAD_BYTES = 4 << 20
"""A stream that holds so much unread takes no more until it is read."""
_LATE_MESSAGES = 64
"""Taken one after another once a deadline has passed: what has come by then still counts, but not without end."""
_HEADER = struct.Struct("<6I")
_STLS = struct.unpack("<I", b"STLS")[0]
_ID = constants.ID_TO_WIRE


class KeyRefusedError(Exception):
    """The device does not know our key, and nobody confirmed it there in time."""


class TLSWantedError(Exception):
    """The port is that of Android 11's wireless debugging, which wants a pairing and TLS."""


class ServiceRefusedError(Exception):
    """The device does not offer the service."""


class Signer(NamedTuple):
    """An adb key."""

    sign: Callable[[bytes], bytes]
    public_key: bytes


class ADBConnection:
    """Streams over one link. Methods raise `ChannelTimeoutError` at their deadline, else `ChannelLostError`."""

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
        """Whether nothing more can be said over it."""
        return self._link.lost

    def log_in(self, signer: Callable[[], Signer], deadline: Deadline) -> None:
        """Says hello, and signs what the device asks for.

        Args:
            signer: called if the device wants to know who we are; what it raises goes through.

        Raises:
            KeyRefusedError, TLSWantedError
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
                return self._welcome(message)
            if command == _STLS:
                raise TLSWantedError
            if command != _ID[constants.AUTH] or kind != constants.AUTH_TOKEN:
                continue
            if key is None:
                key = signer()
                self._send(command, constants.AUTH_SIGNATURE, 0, key.sign(payload), deadline)
            elif not asked:  # it does not know the key, and asks its user about it
                asked = True
                deadline = Deadline(CONFIRM_S)
                self._send(command, constants.AUTH_RSAPUBLICKEY, 0, key.public_key + b"\0", deadline)

    def open(self, service: str, deadline: Deadline) -> ADBStream:
        """Raises `ServiceRefusedError`."""
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
        self._link.close()

    def pump(self, deadline: Deadline) -> None:
        """Takes one message and hands it to its stream."""
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
        """Sends what fits a message; how much that was."""
        piece = self._link.piece(data, self.max_payload)
        self._send(_ID[constants.WRTE], stream.id, stream.remote, piece, deadline)
        return len(piece)

    def acknowledge(self, stream: ADBStream, deadline: Deadline) -> None:
        self._send(_ID[constants.OKAY], stream.id, stream.remote, b"", deadline)

    def close_stream(self, stream: ADBStream, deadline: Deadline) -> None:
        if not stream.closed and not self.lost:
            self._forget(stream, deadline)
        stream.closed = True

    def _forget(self, stream: ADBStream, deadline: Deadline) -> None:
        del self._streams[stream.id]
        self._send(_ID[constants.CLSE], stream.id, stream.remote, b"", deadline)

    def _welcome(self, message: tuple[int, int, int, bytes]) -> None:
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
    """Bytes to and from one service."""

    def __init__(self, connection: ADBConnection, number: int) -> None:
        self.id = number
        self.remote = 0
        self.ready = False
        """Whether the device has taken what was sent last."""
        self.closed = False
        """Whether no more will come than what has not been read yet."""
        self._connection = connection
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._unacknowledged = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to read at once."""
        return bool(self._unread)

    def read(self, deadline: Deadline) -> bytes:
        """What comes next; nothing at the end."""
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
        """Returns when the device has taken all but the last message. At the end of the stream, does nothing."""
        rest = memoryview(data)
        while len(rest):
            while not self.ready:
                if self.closed:
                    return
                self._connection.pump(deadline)
            self.ready = False
            rest = rest[self._connection.send_data(self, rest, deadline) :]

    def close(self, deadline: Deadline) -> None:
        self._connection.close_stream(self, deadline)

    def take(self, data: bytes, deadline: Deadline) -> None:
        """Of the connection: what has come."""
        if data:
            self._unread.append(data)
            self._unread_bytes += len(data)
        if self._unread_bytes > _UNREAD_BYTES + MAX_PAYLOAD:
            self._connection.close()
            raise ChannelLostError("adbd sends more than it was asked for")
        # The device sends the next message when this one is acknowledged. A writer takes in what comes meanwhile,
        # lest two who both only write wait for each other for ever.
        if self._unread_bytes < _UNREAD_BYTES:
            self._connection.acknowledge(self, deadline)
        else:
            self._unacknowledged = True
