"""The transport to Android devices with a Python that adb's user may start: the worker in adbd's shell."""

from __future__ import annotations

import hashlib
import shlex
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

from latlab.agents.protocol.errors import DISK_FULL
from latlab.harness.text import printable
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.adb.connection import ServiceRefusedError
from latlab.harness.transports.adb.phone_transport import PhoneTransport
from latlab.harness.transports.adb.services import Event, ShellProcess
from latlab.harness.transports.base import (
    ChannelClosedError,
    ChannelLostError,
    ChannelTimeoutError,
    ConnectError,
    Deadline,
)
from latlab.harness.transports.worker_archive import worker_program

__all__ = ["ADBTransport"]

TERMUX_PYTHON = "/data/data/com.termux/files/usr/bin/python3"
START_S = 20.0
"""Seconds for a shell to start."""
END_S = 1.0
"""Seconds that a worker may take to end by itself: it needs milliseconds, unless a runtime is computing."""
_OLDEST_PYTHON = (3, 9)
_STDERR_TAIL_BYTES = 16384
_MAX_GREETING_BYTES = 16384
_PID = "latlab-worker"


class ADBTransport(PhoneTransport):
    """A worker as a process of adbd's shell; model files reach it through adb's file service.

    The worker ends with the connection: adbd then closes its stdin and sends it SIGHUP.

    Args:
        name: the device, for messages.
        config: its entry in the inventory.
    """

    STEPS = ("connection", "login", "work folder", "Python")

    def __init__(self, name: str, config: ADBDevice) -> None:
        super().__init__(name, config)
        self._config = config
        self._process: ShellProcess | None = None
        self._pid = 0
        self._unread = b""

    def _connect(self) -> None:
        with self._phone.in_use:
            self._phone.connect()
            step = "work folder"
            try:
                self._folder = self._phone.find_work_folder(running=False)
                program = self._bring_program()
                step = "Python"
                self._start(self._find_python(), program)
            except (ChannelLostError, ChannelTimeoutError, ServiceRefusedError) as error:
                words = str(error) or "it does not answer"
                raise ConnectError(f"device {self.name}: {words}", step=step) from None
            except OSError as error:
                full = error.errno in DISK_FULL
                raise ConnectError(
                    f"device {self.name}: cannot bring the worker to {self._work}: {error.strerror}",
                    step="work folder",
                    advice="Free some space on it." if full else "Name another folder with `work`.",
                    lasting=True,
                ) from error

    def _send(self, data: bytes, deadline: Deadline) -> None:
        with self._phone.in_use:
            self._running().write(data, deadline)

    def _receive(self, deadline: Deadline) -> bytes:
        with self._phone.in_use:
            if self._unread:
                early, self._unread = self._unread, b""
                return early
            process = self._running()
            while True:
                event, data = process.read(deadline)
                if event is Event.STDOUT and data:
                    return data
                if event is Event.STDERR:
                    self._note_stderr(data)
                if event is Event.EXIT:
                    self._fetch_stderr(process)
                    raise ChannelClosedError(_how_it_ended(data))

    def _disconnect(self, *, gently: bool) -> None:
        with self._phone.ending() as alone:
            if not alone:
                return
            process, self._process, self._unread = self._process, None, b""
            connection = self._phone.connection
            if process and connection and not connection.lost and not process.ended:
                with suppress(ChannelLostError, ChannelTimeoutError):
                    self._end(process, gently)
            self._phone.disconnect(self._folder.path if self._folder else None)

    def _end(self, process: ShellProcess, gently: bool) -> None:
        if gently:
            with suppress(ChannelTimeoutError):
                process.close_stdin(Deadline(END_S))
                deadline = Deadline(END_S)
                while not process.ended:
                    event, data = process.read(deadline)
                    if event is Event.STDERR:
                        self._note_stderr(data)
        self._fetch_stderr(process)
        if not process.ended:
            self._phone.shell(f"kill -9 {self._pid}", END_S)
            process.close(Deadline(END_S))

    @property
    def _work(self) -> str:
        assert self._folder is not None
        return self._folder.path

    def _running(self) -> ShellProcess:
        if self._process is None:
            raise ChannelClosedError("was ended")
        return self._process

    def _bring_program(self) -> str:
        program = worker_program()
        remote = f"{self._work}/{program.name}"
        with tempfile.NamedTemporaryFile() as file:
            file.write(program.content)
            file.flush()
            self._phone.bring(Path(file.name), remote, hashlib.sha256(program.content).hexdigest())
        return remote

    def _find_python(self) -> str:
        named = self._config.python
        candidates = [named] if named else [TERMUX_PYTHON, "python3"]
        tells = "import sys; print(sys.executable, *sys.version_info[:2])"
        refusals = []
        for candidate in candidates:
            ran = self._phone.shell(f"{shlex.quote(candidate)} -S -c {shlex.quote(tells)}", START_S)
            words = ran.output.decode("utf-8", "replace").split()
            if ran.status == 0 and len(words) == 3 and words[1].isdigit() and words[2].isdigit():
                if (int(words[1]), int(words[2])) >= _OLDEST_PYTHON:
                    return named or words[0]
                refusals.append(f"{words[0]} is Python {words[1]}.{words[2]}")
            else:
                said = (ran.errors or ran.output).decode("utf-8", "replace").strip().rpartition("\n")[2]
                refusals.append(printable(said) or candidate)
        raise ConnectError(
            f"device {self.name}: no Python 3.9 or later that adb's user may start ({'; '.join(refusals)})",
            step="Python",
            advice="Name one with `python`; or measure with `benchmark_model`, which needs no Python; or run sshd in "
            "Termux and describe the phone as an ssh device (port 8022), which needs no adb.",
            lasting=True,
        )

    def _start(self, python: str, program: str) -> None:
        work = shlex.quote(self._work)
        # faulthandler: when native code crashes, stderr shows where. `exec` gives Python the shell's process id.
        command = f"{shlex.quote(python)} -X faulthandler {shlex.quote(program)} --work {work}"
        connection = self._phone.connection
        assert connection is not None
        errors = "" if "shell_v2" in connection.features else " 2>stderr"
        deadline = Deadline(START_S)
        process = ShellProcess(connection, f"cd {work} && echo {_PID} $$ && exec {command}{errors}", deadline)
        said, pid = b"", b""
        while not pid:
            event, data = process.read(deadline)
            if event is Event.STDOUT:
                said += data
            elif event is Event.STDERR:
                self._note_stderr(data)
            if event is Event.EXIT or len(said) > _MAX_GREETING_BYTES:
                words = self.stderr_tail or printable(said.decode("utf-8", "replace"))
                raise ConnectError(f"device {self.name}: its shell does not start: {words}", step="Python")
            # The shell's start-up files may print something first.
            _, found, rest = said.partition(f"{_PID} ".encode())
            if found and b"\n" in rest:
                pid, _, self._unread = rest.partition(b"\n")
        self._pid = int(pid)
        self._process = process

    def _fetch_stderr(self, process: ShellProcess) -> None:
        """Read the worker's stderr from its file, on a device that does not send it separately."""
        if not process.packets:
            with suppress(ChannelLostError, ChannelTimeoutError):
                ran = self._phone.shell(f"tail -c {_STDERR_TAIL_BYTES} {shlex.quote(self._work + '/stderr')}", END_S)
                self._stderr.clear()
                self._note_stderr(ran.output)


def _how_it_ended(status: bytes) -> str:
    if not status:
        return "ended"
    number = status[0] - 128
    if number in set(signal.Signals):
        return f"was killed by {signal.Signals(number).name}"
    return f"ended with exit code {status[0]}"
