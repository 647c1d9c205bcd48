"""What adbd does for us: running commands, with their exit status and their stderr apart, and taking files."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import BinaryIO, NamedTuple

from latlab.harness.transports.adb.connection import ADBConnection, ADBStream, ServiceRefusedError
from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Deadline

__all__ = ["Event", "Ran", "ShellProcess", "TooMuchOutputError", "push", "run"]

MAX_OUTPUT = 1 << 20
"""Of a command that is run to its end."""
STALL_S = 30.0
"""A push in which nothing moves for so long is given up: flash memory may take seconds over a megabyte."""
_SYNC_DATA_MAX = 1 << 16
_SHELL_DATA_MAX = 1 << 24
_SYNC = struct.Struct("<4sI")
_SHELL = struct.Struct("<BI")
_MAX_CHATTER = 16384
_PID = b"latlab-shell "
_OLD_RUN = 'echo "latlab-shell $$"\n({command}\n) 2>&1; echo "\n$?"'
_REASONS = {
    "No space left": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Quota exceeded": errno.EDQUOT,
    "Read-only": errno.EROFS,
    "Permission denied": errno.EACCES,
    "No such file": errno.ENOENT,
}


class TooMuchOutputError(ChannelLostError):
    """A command said more than anybody wants to read."""


class Event(IntEnum):
    """What a process tells (the ids of shell protocol 2)."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    CLOSE_STDIN = 4


class Ran(NamedTuple):
    """A command that has ended."""

    status: int | None
    """Its exit status, or 128 and the signal that killed it; None where the device does not tell."""
    output: bytes
    errors: bytes


class ShellProcess:
    """A command on the device, with pipes to it.

    A device that knows shell protocol 2 (Android 7 and later) tells stdout from stderr, and how the command
    ended. On an older one both come as stdout, and the end is all that is known: see `run`.
    """

    def __init__(self, connection: ADBConnection, command: str, deadline: Deadline) -> None:
        self.packets = "shell_v2" in connection.features
        service = "shell,v2,raw:" if self.packets else "exec:"
        self._stream: ADBStream = connection.open(service + command, deadline)
        self._got = bytearray()
        self.ended = False

    def write(self, data: bytes, deadline: Deadline) -> None:
        """To its stdin."""
        self._stream.write(_SHELL.pack(Event.STDIN, len(data)) + data if self.packets else data, deadline)

    def close_stdin(self, deadline: Deadline) -> None:
        """Where the device can do that; else, its end."""
        if self.packets:
            self._stream.write(_SHELL.pack(Event.CLOSE_STDIN, 0), deadline)
        else:
            self.close(deadline)

    def read(self, deadline: Deadline) -> tuple[Event, bytes]:
        """What it says next. `Event.EXIT` is the last thing, with one byte of exit status, or none if unknown."""
        while True:
            event = self._packet() if self.packets else None
            if event:
                return event
            data = self._stream.read(deadline)
            if not data:
                self.ended = True
                return Event.EXIT, b""
            if not self.packets:
                return Event.STDOUT, data
            self._got += data

    def has_ended(self) -> bool:
        """Whether its end is known, as far as can be told without waiting."""
        while not self.ended:
            try:
                self.read(Deadline(0))
            except ChannelTimeoutError:
                break
        return self.ended

    def close(self, deadline: Deadline) -> None:
        """Hangs up: adbd closes its pipes and sends it SIGHUP."""
        self.ended = True
        self._stream.close(deadline)

    def _packet(self) -> tuple[Event, bytes] | None:
        """The next one that says something, if all of it has come."""
        while len(self._got) >= _SHELL.size:
            number, length = _SHELL.unpack_from(self._got)
            if length > _SHELL_DATA_MAX:
                raise ChannelLostError("adbd's shell sends what is no packet")
            end = _SHELL.size + length
            if len(self._got) < end:
                return None
            data = bytes(self._got[_SHELL.size : end])
            del self._got[:end]
            if number == Event.EXIT:
                self.ended = True
            if number in (Event.STDOUT, Event.STDERR, Event.EXIT):
                return Event(number), data
        return None


def run(connection: ADBConnection, command: str, timeout_s: float) -> Ran:
    """Runs a shell command to its end.

    On a device without shell protocol 2 its stderr comes with its output.

    Raises:
        ChannelTimeoutError: it was not through in time, and was ended.
        TooMuchOutputError: as was this one.
    """
    old = "shell_v2" not in connection.features
    deadline = Deadline(timeout_s)
    process = ShellProcess(connection, _OLD_RUN.format(command=command) if old else command, deadline)
    output, errors, status = bytearray(), bytearray(), b""
    try:
        while not process.ended:
            event, data = process.read(deadline)
            if event is Event.EXIT:
                status = data
            else:
                (output if event is Event.STDOUT else errors).extend(data)
            if len(output) + len(errors) > MAX_OUTPUT:
                raise TooMuchOutputError(f"a command on it does not stop talking: more than {MAX_OUTPUT} bytes")
    finally:
        if not process.ended and not connection.lost:
            process.close(Deadline(1.0))
            if old:
                _kill(connection, bytes(output[:_MAX_CHATTER]))
    if not old:
        return Ran(status[0] if status else None, bytes(output), bytes(errors))
    said, _, last = bytes(output).partition(_PID)[2].partition(b"\n")[2].rstrip(b"\n").rpartition(b"\n")
    return Ran(int(last) if last.isdigit() and len(last) < 4 else None, said, b"")


def _kill(connection: ADBConnection, output: bytes) -> None:
    """Of what an old adbd has started, which does not send it a SIGHUP: its whole process group."""
    pid = output.partition(_PID)[2].partition(b"\n")[0]
    if pid.isdigit():
        with suppress(ChannelTimeoutError, ServiceRefusedError):
            deadline = Deadline(1.0)
            killing = ShellProcess(connection, f"kill -9 -- -{int(pid)}", deadline)
            while not killing.ended:
                killing.read(deadline)


def push(connection: ADBConnection, file: BinaryIO, remote: str, mode: int = 0o644) -> None:
    """Writes a file on the device, from where `file` stands. What is there is overwritten.

    Raises:
        OSError: the device refuses it, with `errno.ENOSPC` where its disk is full.
        ChannelLostError: the connection is gone, or nothing moved for `STALL_S`.
    """
    try:
        stream = connection.open("sync:", Deadline(STALL_S))
        name = f"{remote},{0o100000 | mode}".encode()
        stream.write(_SYNC.pack(b"SEND", len(name)) + name, Deadline(STALL_S))
        for message in _messages(file, connection.max_payload):
            if stream.waiting or stream.closed:
                break  # it complains already
            stream.write(message, Deadline(STALL_S))
        else:
            stream.write(_SYNC.pack(b"DONE", int(os.fstat(file.fileno()).st_mtime) & 0x7FFFFFFF), Deadline(STALL_S))
        _answer(stream)
        stream.close(Deadline(STALL_S))
    except ChannelTimeoutError:
        connection.close()
        raise ChannelLostError(f"a push stood still for {STALL_S:g} s") from None


def _messages(file: BinaryIO, size: int) -> Iterator[memoryview]:
    """The file in pieces of at most 64 KiB, each with its header, as many of them together as fit `size` bytes."""
    count, step = max(1, size // (_SYNC_DATA_MAX + _SYNC.size)), _SYNC.size + _SYNC_DATA_MAX
    buffer = memoryview(bytearray(count * step))
    while True:
        end = 0
        for _ in range(count):
            start = end + _SYNC.size
            length = file.readinto(buffer[start : start + _SYNC_DATA_MAX])  # type: ignore[attr-defined]
            if not length:
                break
            _SYNC.pack_into(buffer, end, b"DATA", length)
            end = start + length
        if not end:
            return
        yield buffer[:end]


def _answer(stream: ADBStream) -> None:
    """Raises `OSError` for a refusal."""
    answer, deadline = bytearray(), Deadline(STALL_S)
    while len(answer) < _SYNC.size or (
        answer[:4] == b"FAIL" and len(answer) < _SYNC.size + _SYNC.unpack_from(answer)[1]
    ):
        data = stream.read(deadline)
        if not data or len(answer) > _SYNC_DATA_MAX:
            break
        answer += data
    if answer[:4] == b"OKAY":
        return
    stream.close(deadline)
    words = bytes(answer[_SYNC.size :]).decode("utf-8", "replace") or "adbd hung up"
    for sign, number in _REASONS.items():
        if sign in words:
            raise OSError(number, f"{os.strerror(number)} (adbd: {words})")
    raise OSError(errno.EIO, f"adbd: {words}")
