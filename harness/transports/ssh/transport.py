"""The transport to machines with an SSH server: a Raspberry Pi, a Jetson, a workstation, a server in another room.

Each worker has one connection: a channel of it carries the worker's stdin, stdout and stderr, and another one SFTP for
model files. Nothing is installed on the device and no port is opened there.
"""

from __future__ import annotations

import errno
import io
import re
import secrets
import shlex
import threading
from contextlib import suppress
from pathlib import Path

from latlab.harness.text import printable
from latlab.harness.transports.base import (
    ChannelClosedError,
    ChannelLostError,
    ChannelTimeoutError,
    ConnectError,
    Deadline,
    Transport,
    WorkerError,
)
from latlab.harness.transports.ssh.config import SSHDevice
from latlab.harness.transports.ssh.connection import Connection
from latlab.harness.transports.ssh.route import StepError, find_route
from latlab.harness.transports.ssh.sftp import Files
from latlab.harness.transports.ssh.stream import Stream
from latlab.harness.transports.worker_archive import worker_program

__all__ = ["SSHTransport"]

START_S = 60.0
"""Seconds that Python may take to start: usually some 10 ms, but many seconds on an emulated or swapping device."""
END_S = 1.0
"""Seconds that a worker may take to end by itself."""
DISCONNECT_S = 1.6
"""Seconds for all that is sent to a device before the connection is closed."""
PROBE_S = 20.0
"""Seconds that a short shell command on the device may take."""
OLDEST_PYTHON = (3, 9)
_MAX_GREETING_BYTES = 1 << 16
_CLOSED = "its connection was closed"
# On one line and without exclamation marks, because the login shell that gets it may be csh.
_PYTHON_CHECK = (
    "import sys; v = sys.version_info; "
    'sys.stdout.write("latlab-python %d %d\\n" % (v[0], v[1])); sys.stdout.flush(); '
    f"sys.exit(v[0] < {OLDEST_PYTHON[0]} or v[:2] < {OLDEST_PYTHON})"
)
_START = (
    f'"$1" -S -c {shlex.quote(_PYTHON_CHECK)} </dev/null || exit; '
    'echo "latlab-worker $$"; exec "$1" -X faulthandler "$2" --work "$3"'
)
"""Prints the version of Python, then its own process id, and then becomes the worker, which keeps that id."""
_DISK_PROBE = 'LC_ALL=C; export LC_ALL; dd if=/dev/zero of="$1" bs=65536 count="$2" 2>&1; rm -f "$1"'
_PROBE_BLOCK = 65536
_FOLDER_PROBE = 'LC_ALL=C; export LC_ALL; { mkdir -p "$1" && : >"$1/probe.$$" && rm -f "$1/probe.$$"; } 2>&1'
_REASON = re.compile(r"(?m)^.*(?:mkdir|sh|create)\b.*: ([A-Z][\w -]{3,60})\s*$")
_FULL = re.compile(r"no space left|quota exceeded|disk full", re.IGNORECASE)


class SSHTransport(Transport):
    """A worker at the other end of an SSH connection.

    Host keys are checked as strictly as OpenSSH's client checks them, and never recorded here. A login takes a key.
    A cut connection, and a peer that hangs, are noticed within the configuration's `patience_s`.

    Args:
        name: the device, for messages.
        config: its entry in the inventory.
    """

    STEPS = ("address", "network", "host key", "login", "work folder", "Python")

    def __init__(self, name: str, config: SSHDevice) -> None:
        super().__init__(name)
        self._config = config
        self._connection: Connection | None = None
        self._files: Files | None = None
        self._worker: Stream | None = None
        self._pid = 0
        self._work = ""
        self._unread = b""
        self._resumed = False

    def _connect(self) -> None:
        step = "network"
        connection: Connection | None = None
        try:
            connection = self._connection = Connection(find_route(self._config), self._config.patience_s)
            connection.open()
            step = "work folder"
            self._bring_program(self._open_files())
            step = "Python"
            self._start_worker(connection)
            if self._connection is not connection:  # another thread has closed it in the meantime
                raise ChannelLostError(_CLOSED)
        except StepError as error:
            self._disconnect(gently=False)
            # Parts of it may be the other side's words.
            message, advice = printable(f"device {self.name}: {error.message}"), printable(error.advice)
            raise ConnectError(message, step=error.step, advice=advice, lasting=error.lasting) from error
        except (ChannelLostError, ChannelTimeoutError) as error:
            self._disconnect(gently=False)
            raise ConnectError(f"device {self.name}: {str(error) or 'no answer'}", step=step) from error
        except BaseException:
            self._disconnect(gently=False)
            raise
        finally:
            if connection is not None and self._connection is not connection:
                connection.close()

    def _send(self, data: bytes, deadline: Deadline) -> None:
        self._running().send(data, deadline)

    def _receive(self, deadline: Deadline) -> bytes:
        worker = self._running()
        if self._unread:
            data, self._unread = self._unread, b""
        else:
            data = worker.receive(deadline)
        if not data:
            raise worker.end(END_S)
        return data

    def push(self, path: Path, sha256: str, suffix: str) -> None:
        """Make a model file available to `load`, as every transport does.

        An earlier, interrupted push may have left a wrong part, to which the rest was added. The worker has then
        deleted the file, and all of it is sent again.
        """
        self._resumed = False
        try:
            super().push(path, sha256, suffix)
        except WorkerError as error:
            if error.kind != "corrupt_artifact" or not self._resumed:
                raise
            super().push(path, sha256, suffix)

    def _transfer(self, path: Path, sha256: str) -> None:
        files = self._files or self._open_files()
        self._files = None  # not used again if this is interrupted: unread replies would be left in its channel
        arrived = f"{self._work}/incoming/{sha256}"
        part, size = f"{arrived}.part", path.stat().st_size
        for may_pass in (True, False):
            try:
                with path.open("rb") as source:
                    self._resumed = files.bring(source, size, part, arrived)
                break
            except OSError as error:
                full = self._disk_full_error(error, part, size)
                for wrong in (part, arrived):  # it may have a hole, and would keep a full disk full
                    files.remove(wrong)
                # SFTP gives no reason, and the disk may have been full and have room again: a second try finds out.
                if full or error.errno != errno.EIO or not may_pass:
                    self._files = files
                    raise full or error from error
        self._files = files

    def _disconnect(self, *, gently: bool) -> None:
        connection, self._connection = self._connection, None
        worker, self._worker = self._worker, None
        self._files, self._unread = None, b""
        if connection is None:
            return
        try:
            if worker is not None and connection.is_active:
                # In a thread of its own, because any message may block on a connection that hangs.
                ending = threading.Thread(target=self._end_worker, args=(connection, worker, gently), daemon=True)
                ending.start()
                ending.join(DISCONNECT_S)
            if worker is not None:
                worker.drain_stderr()
        finally:
            connection.close()

    def _end_worker(self, connection: Connection, worker: Stream, gently: bool) -> None:
        """End the worker, by force if need be: one that hangs would keep the device in use."""
        with suppress(ChannelLostError, ChannelTimeoutError, OSError, EOFError):
            worker.finish()
            if not (gently and worker.wait_for_end(END_S)):
                connection.output(f"kill -9 {self._pid}", DISCONNECT_S)
                worker.wait_for_end(DISCONNECT_S)

    def _running(self) -> Stream:
        worker = self._worker
        if worker is None:  # closed by another thread
            raise ChannelClosedError("was ended")
        return worker

    def _open_files(self) -> Files:
        connection = self._connection
        if connection is None:  # closed by another thread
            raise ChannelLostError(_CLOSED)
        try:
            return Files(connection.run("sftp", subsystem=True))
        except ChannelLostError as error:
            if not connection.is_active:
                raise
            raise StepError(
                "work folder",
                f"files cannot be brought to {connection.hop}: {error}",
                "Its SSH server must offer SFTP (Debian: sudo apt install openssh-sftp-server).",
                lasting=True,
            ) from error

    def _bring_program(self, files: Files) -> None:
        program = worker_program()
        self._files = files
        try:
            home = files.home()
            self._work = _absolute(self._config.work, home)
            path = f"{self._work}/{program.name}"
            files.make_folders(f"{self._work}/incoming")
            if files.size(path) != len(program.content) or files.read(path, len(program.content)) != program.content:
                unfinished = f"{path}.{secrets.token_hex(4)}"
                try:
                    files.write(io.BytesIO(program.content), unfinished)
                    files.replace(path, unfinished)
                except OSError as error:
                    full = self._disk_full_error(error, unfinished, len(program.content))
                    files.remove(unfinished)
                    raise full or error from error
        except OSError as error:
            plain = error.errno in (errno.ENOSPC, errno.EACCES)
            reason = str(error.strerror) if plain else self._folder_error()
            no_space = error.errno == errno.ENOSPC or _FULL.search(reason)
            raise StepError(
                "work folder",
                f"cannot use the work folder {self._work}: {reason}",
                "Free some space there." if no_space else "Name another with `work` in the inventory.",
                lasting=True,
            ) from error

    def _start_worker(self, connection: Connection) -> None:
        python = self._config.python or "python3"
        if python.startswith("~/"):
            python = f"./{python[2:]}"  # the shell starts at home
        words = ["/bin/sh", "-c", _START, "sh", python, f"{self._work}/{worker_program().name}", self._work]
        self._worker = worker = connection.run(f"exec {shlex.join(words)}", self._note_stderr)
        version, deadline, greeting = "", Deadline(START_S), b""
        # Start-up files of the login shell may print something first.
        while not (found := re.search(rb"^latlab-worker (\d{1,10})\n", greeting, re.MULTILINE)):
            try:
                data = worker.receive(deadline)
            except ChannelTimeoutError:
                raise StepError("Python", f"{python} did not start within {START_S:g} s") from None
            greeting += data
            if checked := re.search(rb"^latlab-python (\d{1,4} \d{1,4})\n", greeting, re.MULTILINE):
                version = checked[1].decode().replace(" ", ".")
            if not data or len(greeting) > _MAX_GREETING_BYTES:
                raise self._python_error(worker, python, version)
        self._pid = int(found[1])
        self._unread = greeting[found.end() :]

    def _python_error(self, worker: Stream, python: str, version: str) -> Exception:
        how = worker.end(END_S)
        if isinstance(how, ChannelLostError):
            return how
        if version:
            problem = f"{python} is Python {version}; the worker needs {'.'.join(map(str, OLDEST_PYTHON))} or later"
        else:
            said = printable(self.stderr_tail.strip().rpartition("\n")[2])
            problem = f"{python} cannot be started: {said or how}"
        return StepError(
            "Python",
            problem,
            "Install one (Debian: sudo apt install python3), or name another with `python` in the inventory.",
            lasting=True,
        )

    def _disk_full_error(self, error: OSError, near: str, size: int) -> OSError | None:
        """Return an error with `errno.ENOSPC` if the disk, or the user's quota, is full; else None.

        SFTP has no status for a full disk, so this writes some bytes next to the file and reads the shell's message.
        """
        if error.errno != errno.EIO or self._connection is None:
            return None
        blocks = min(size // _PROBE_BLOCK + 1, 64)
        words = ["/bin/sh", "-c", _DISK_PROBE, "sh", f"{near}.probe", str(blocks)]
        try:
            said = self._connection.output(f"exec {shlex.join(words)}", PROBE_S)
        except (ChannelLostError, ChannelTimeoutError):
            return None
        return OSError(errno.ENOSPC, "the device's disk is full") if _FULL.search(said) else None

    def _folder_error(self) -> str:
        """Return the device's own reason: of a read-only file system, SFTP reports no more than "Failure"."""
        said = ""
        if self._connection is not None:
            words = ["/bin/sh", "-c", _FOLDER_PROBE, "sh", self._work]
            with suppress(ChannelLostError, ChannelTimeoutError):
                said = self._connection.output(f"exec {shlex.join(words)}", PROBE_S)
        reason = _REASON.search(said[:10_000])
        return f"it cannot be written{f' ({reason[1]})' if reason else ''}"


def _absolute(path: str, home: str) -> str:
    """Return a path on the device as an absolute one; a relative path starts at the home folder."""
    path = path.removeprefix("~/") if path != "~" else ""
    return (path if path.startswith("/") else f"{home.rstrip('/')}/{path}").rstrip("/") or "/"
