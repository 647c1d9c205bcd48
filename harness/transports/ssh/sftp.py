"""A client of SFTP (version 3, draft-ietf-secsh-filexfer-02), with the requests that a push needs.

paramiko's own client is not used: it ignores the replies to the last of its pipelined writes, and waits for replies
without a deadline. This one pipelines writes as well, and is as fast as the encryption allows.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from typing import BinaryIO

from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Deadline
from latlab.harness.transports.ssh.stream import Stream

__all__ = ["Files"]

STALL_S = 60.0
"""Longest wait for a reply in seconds: an SD card flushes slowly, but one that takes longer than this is broken."""
_BLOCK = 1 << 15
"""Bytes per read or write; every server takes that much."""
_MAX_IN_FLIGHT = 64
"""Writes that are sent before the reply to the first one is read."""
_MAX_PACKET_BYTES = 1 << 18
_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _REMOVE, _MKDIR, _REALPATH, _STAT = 1, 2, 3, 4, 5, 6, 13, 14, 16, 17
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED = 101, 102, 103, 104, 105, 200
_READING, _WRITING = 0x01, 0x02 | 0x08
"""Flags of an open request; a file that is opened for writing is made where there is none."""
_OK, _EOF = 0, 1
_ERRORS = {2: errno.ENOENT, 3: errno.EACCES, 8: errno.EOPNOTSUPP}
"""All reasons that the protocol has; anything else, a full disk included, is a "Failure"."""


class Files:
    """Files on the device, over a channel on which the SFTP server runs.

    Methods raise `OSError` for what the server refuses (`errno.EIO` where it gives no reason), and `ChannelLostError`
    when the channel is gone or silent; the object cannot be used after that.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._number = 0
        self._bytes = bytearray()
        self._send(_INIT, struct.pack(">I", 3))
        kind, _ = self._packet()
        if kind != _VERSION:
            raise ChannelLostError("the server does not speak SFTP")

    def home(self) -> str:
        """Return the absolute path at which relative paths start."""
        kind, body = self._ask(_REALPATH, _text("."))
        if kind != _NAME or len(body) < 8:
            raise _error(kind, body, ".")
        length = int.from_bytes(body[4:8], "big")
        return body[8 : 8 + length].decode("utf-8", "surrogateescape")

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none."""
        return _size(*self._ask(_STAT, _text(path)), path)

    def make_folders(self, path: str) -> None:
        """Make a folder and those above it, where they do not exist yet."""
        if self.size(path) is not None:
            return
        if (parent := os.path.dirname(path)) not in ("", path):
            self.make_folders(parent)
        try:
            self._expect_ok(_MKDIR, _text(path) + struct.pack(">I", 0), path)
        except OSError:
            if self.size(path) is None:  # otherwise another program has just made it
                raise

    def read(self, path: str, most: int) -> bytes:
        """Return the first `most` bytes of a file, or fewer if it is shorter."""
        handle, found = self._open(path, _READING), b""
        try:
            while len(found) < most:
                wanted = min(_BLOCK, most - len(found))
                kind, body = self._ask(_READ, _text(handle) + struct.pack(">QI", len(found), wanted))
                if kind == _STATUS and body[:4] == struct.pack(">I", _EOF):
                    break
                if kind != _DATA or len(body) <= 4:
                    raise _error(kind, body, path)
                found += body[4:]
        finally:
            self._close(handle)
        return found

    def write(self, source: BinaryIO, path: str) -> None:
        """Write everything in `source` to a file that does not exist yet."""
        self._write_all(source, self._open(path, _WRITING), path)

    def bring(self, source: BinaryIO, size: int, part: str, path: str) -> bool:
        """Copy all `size` bytes of `source` to `part`, continue where an earlier copy stopped, and rename it to `path`.

        Requests are sent without waiting for the replies before them: on a wireless link each reply takes
        milliseconds. If this raises, `part` and `path` may exist with wrong content.

        Returns:
            True if a beginning of the file was there already.
        """
        asked, opened = self._request(_STAT, _text(part)), self._request(_OPEN, _to_open(part, _WRITING))
        found, opening = self._answer(asked), self._answer(opened)
        handle = _handle(*opening, part)
        there = _size(*found, part) or 0
        if there > size:  # a part of another file
            self._close(handle)
            self.remove(part)
            handle, there = self._open(part, _WRITING), 0
        self._write_all(source, handle, part, there, path)
        return there > 0

    def replace(self, path: str, by: str) -> None:
        """Rename the file `by` to `path` in one step; a file that is there is replaced."""
        self._expect_ok(_EXTENDED, _to_replace(path, by), path)

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        with suppress(FileNotFoundError):
            self._expect_ok(_REMOVE, _text(path), path)

    def close(self) -> None:
        """Close the channel."""
        self._stream.close()

    def _write_all(
        self, source: BinaryIO, handle: bytes, path: str, start: int = 0, then_to: str | None = None
    ) -> None:
        """Copy `source` from byte `start` on to the same place in an open file, close it and rename it to `then_to`."""
        pending: list[int] = []
        failure: OSError | None = None
        try:
            source.seek(start)
            while (block := source.read(_BLOCK)) and failure is None:
                body = _text(handle) + struct.pack(">Q", start) + _text(block)
                pending.append(self._request(_WRITE, body))
                start += len(block)
                if len(pending) >= _MAX_IN_FLIGHT:
                    failure = self._written(pending.pop(0), path)
        except OSError as error:  # this machine cannot read the source
            failure = error
        closing = self._request(_CLOSE, _text(handle))
        if then_to is not None and failure is None:
            renaming = self._request(_EXTENDED, _to_replace(then_to, path))
        else:
            renaming = None
        for number in pending:  # every reply is read: one that is left would be taken for the reply to a later request
            failure = self._written(number, path) or failure
        self._answer(closing)
        if renaming is not None and then_to is not None:
            refused = self._written(renaming, then_to)
            failure = failure or refused
        if failure:
            raise failure

    def _open(self, path: str, flags: int) -> bytes:
        return _handle(*self._ask(_OPEN, _to_open(path, flags)), path)

    def _close(self, handle: bytes) -> None:
        with suppress(OSError):
            self._ask(_CLOSE, _text(handle))

    def _written(self, number: int, path: str) -> OSError | None:
        kind, body = self._answer(number)
        return None if _is_ok(kind, body) else _error(kind, body, path)

    def _expect_ok(self, kind: int, body: bytes, path: str) -> None:
        answered, answer = self._ask(kind, body)
        if not _is_ok(answered, answer):
            raise _error(answered, answer, path)

    def _ask(self, kind: int, body: bytes) -> tuple[int, bytes]:
        return self._answer(self._request(kind, body))

    def _request(self, kind: int, body: bytes) -> int:
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._send(kind, struct.pack(">I", self._number) + body)
        return self._number

    def _answer(self, number: int) -> tuple[int, bytes]:
        """Return the kind and body of the reply to request `number`; servers reply in order, as OpenSSH's does."""
        kind, body = self._packet()
        if body[:4] != struct.pack(">I", number):
            raise ChannelLostError("the SFTP server answers what was not asked")
        return kind, body[4:]

    def _send(self, kind: int, body: bytes) -> None:
        try:
            self._stream.send(struct.pack(">IB", len(body) + 1, kind) + body, Deadline(STALL_S))
        except ChannelTimeoutError:
            raise ChannelLostError(f"the device took no data for {STALL_S:g} s") from None
        except Exception as error:
            raise _lost(error) from None

    def _packet(self) -> tuple[int, bytes]:
        length = int.from_bytes(self._take(4), "big")
        if not 1 <= length <= _MAX_PACKET_BYTES:
            raise ChannelLostError(
                "what comes is not SFTP: does a start-up file of the login shell there print something?"
            )
        packet = self._take(length)
        return packet[0], packet[1:]

    def _take(self, count: int) -> bytes:
        deadline = Deadline(STALL_S)
        while len(self._bytes) < count:
            try:
                data = self._stream.receive(deadline)
            except ChannelTimeoutError:
                raise ChannelLostError(f"the SFTP server gave no answer for {STALL_S:g} s") from None
            if not data:
                raise _lost(self._stream.end())
            self._bytes += data
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        return taken


def _lost(error: Exception) -> ChannelLostError:
    """Return the error as the loss of the channel: without the SFTP server it is of no use."""
    return error if isinstance(error, ChannelLostError) else ChannelLostError(f"the SFTP server {error}")


def _text(text: str | bytes) -> bytes:
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return struct.pack(">I", len(data)) + data


def _to_open(path: str, flags: int) -> bytes:
    return _text(path) + struct.pack(">II", flags, 0)


def _to_replace(path: str, by: str) -> bytes:
    return _text("posix-rename@openssh.com") + _text(by) + _text(path)


def _handle(kind: int, body: bytes, path: str) -> bytes:
    if kind != _HANDLE or len(body) < 4:
        raise _error(kind, body, path)
    return body[4:]


def _size(kind: int, body: bytes, path: str) -> int | None:
    """Return the size of a file in bytes from the reply to a stat request; None where there is none."""
    if kind == _ATTRS:
        flags, size = struct.unpack_from(">IQ", body.ljust(12, b"\0"))
        return int(size) if flags & 1 else 0
    error = _error(kind, body, path)
    if error.errno == errno.ENOENT:
        return None
    raise error


def _is_ok(kind: int, body: bytes) -> bool:
    return kind == _STATUS and body[:4] == struct.pack(">I", _OK)


def _error(kind: int, body: bytes, path: str) -> OSError:
    if kind != _STATUS or len(body) < 4:
        return OSError(errno.EIO, "the SFTP server gave an answer that makes no sense", path)
    number = _ERRORS.get(int.from_bytes(body[:4], "big"), errno.EIO)
    return OSError(number, os.strerror(number), path)
