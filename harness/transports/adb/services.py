"""Two services of adbd: shell commands with exit status and separate stderr, and pushes of files."""

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

__all__ = ["CompletedCommand", "Event", "ShellProcess", "TooMuchOutputError", "push", "run"]

MAX_OUTPUT = 1 << 20
"""Most bytes that a command under `run` may print."""
STALL_S = 30.0
"""Seconds without progress after which a push is given up: flash memory may take seconds to write a megabyte."""
_SYNC_DATA_MAX = 1 << 16
_SHELL_DATA_MAX = 1 << 24
_SYNC = struct.Struct("<4sI")
_SHELL = struct.Struct("<BI")
_MAX_PID_BYTES = 16384
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
    """A command printed more than `MAX_OUTPUT` bytes."""


class Event(IntEnum):
    """Kinds of packets to and from a process (the ids of shell protocol 2)."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    CLOSE_STDIN = 4


class CompletedCommand(NamedTuple):
    """The outcome of a shell command."""

    status: int | None
    """The exit status, or 128 plus the signal that killed it; None where the device does not report it."""
    output: bytes
    """The bytes of stdout; on devices without shell protocol 2, those of stderr as well."""
    errors: bytes
    """The bytes of stderr."""


class ShellProcess:
    """A running command on the device, with pipes to it.

    A device with shell protocol 2 (Android 7 and later) separates stdout from stderr and reports the exit status. On
    an older one both come as stdout, and only the end is reported: see `run`.

    Args:
        connection: the connection to adbd.
        command: a command for the device's shell.
        deadline: for the command to start.
    """

    def __init__(self, connection: ADBConnection, command: str, deadline: Deadline) -> None:
        self.packets = "shell_v2" in connection.features
        service = "shell,v2,raw:" if self.packets else "exec:"
        self._stream: ADBStream = connection.open(service + command, deadline)
        self._got = bytearray()
        self.ended = False

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Write to its stdin."""
        self._stream.write(_SHELL.pack(Event.STDIN, len(data)) + data if self.packets else data, deadline)

    def close_stdin(self, deadline: Deadline) -> None:
        """Close its stdin; on a device without shell protocol 2 this hangs up altogether."""
        if self.packets:
            self._stream.write(_SHELL.pack(Event.CLOSE_STDIN, 0), deadline)
        else:
            self.close(deadline)

    def read(self, deadline: Deadline) -> tuple[Event, bytes]:
        """Return the next packet; the last is `Event.EXIT`, with the exit status as one byte, or none if unknown."""
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
        """Return whether it has ended, as far as is known without waiting. Output that had arrived is lost."""
        while not self.ended:
            try:
                self.read(Deadline(0))
            except ChannelTimeoutError:
                break
        return self.ended

    def close(self, deadline: Deadline) -> None:
        """Hang up: adbd closes its pipes and sends it SIGHUP."""
        self.ended = True
        self._stream.close(deadline)

    def _packet(self) -> tuple[Event, bytes] | None:
        """Return the next packet of a known kind, or None if not all of it has arrived."""
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


def run(connection: ADBConnection, command: str, timeout_s: float) -> CompletedCommand:
    """Run a shell command to its end.

    Raises:
        ChannelTimeoutError: the command did not end within `timeout_s`; it was killed.
        TooMuchOutputError: the command printed too much; it was killed.
        ChannelLostError: the connection is gone.
        ServiceRefusedError: the device does not offer the service.
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
                _kill(connection, bytes(output[:_MAX_PID_BYTES]))
    if not old:
        return CompletedCommand(status[0] if status else None, bytes(output), bytes(errors))
    said, _, last = bytes(output).partition(_PID)[2].partition(b"\n")[2].rstrip(b"\n").rpartition(b"\n")
    return CompletedCommand(int(last) if last.isdigit() and len(last) < 4 else None, said, b"")


def _kill(connection: ADBConnection, output: bytes) -> None:
    """Kill the process group of a command that an old adbd started: such an adbd sends no SIGHUP."""
    pid = output.partition(_PID)[2].partition(b"\n")[0]
    if pid.isdigit():
        with suppress(ChannelTimeoutError, ServiceRefusedError):
            deadline = Deadline(1.0)
            killing = ShellProcess(connection, f"kill -9 -- -{int(pid)}", deadline)
            while not killing.ended:
                killing.read(deadline)


def push(connection: ADBConnection, file: BinaryIO, remote: str, mode: int = 0o644) -> None:
    """Write a file on the device; an existing one is overwritten.

    Args:
        connection: the connection to adbd.
        file: an open file of this machine, copied from its current position on.
        remote: the path on the device.
        mode: the permissions there.

    Raises:
        OSError: the device refuses it, with `errno.ENOSPC` where its disk is full.
        ChannelLostError: the connection is gone, or there was no progress for `STALL_S`.
    """
    try:
        stream = connection.open("sync:", Deadline(STALL_S))
        name = f"{remote},{0o100000 | mode}".encode()
        stream.write(_SYNC.pack(b"SEND", len(name)) + name, Deadline(STALL_S))
        for message in _messages(file, connection.max_payload):
            if stream.waiting or stream.closed:
                break  # the device has already refused it
            stream.write(message, Deadline(STALL_S))
        else:
            stream.write(_SYNC.pack(b"DONE", int(os.fstat(file.fileno()).st_mtime) & 0x7FFFFFFF), Deadline(STALL_S))
        _read_answer(stream)
        stream.close(Deadline(STALL_S))
    except ChannelTimeoutError:
        connection.close()
        raise ChannelLostError(f"a push stood still for {STALL_S:g} s") from None


def _messages(file: BinaryIO, size: int) -> Iterator[memoryview]:
    """Yield the file as pieces of at most 64 KiB with headers, as many of them together as fit into `size` bytes."""
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


def _read_answer(stream: ADBStream) -> None:
    """Read the device's answer to a push.

    Raises:
        OSError: the device refuses the file.
    """
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
