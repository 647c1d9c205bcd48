"""Machines that an SSH server runs on: a Raspberry Pi, a Jetson, a workstation, a server in another room.

One connection per worker: the worker's stdin, stdout and stderr are a channel of it, and networks travel by SFTP over
another. Nothing is installed on the device and no port is opened there.
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
"""For Python to start: some 10 ms, but many seconds on an emulated or swapping device."""
END_S = 1.0
"""How long a worker may take to end by itself."""
FAREWELL_S = 1.6
"""For everything that is said to a device before the connection is closed."""
PROBE_S = 20.0
OLDEST_PYTHON = (3, 9)
_LONGEST_GREETING = 1 << 16
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
"""Tells whether Python is there, and of which version; then becomes the worker, whose process id was told."""
_DISK_PROBE = 'LC_ALL=C; export LC_ALL; dd if=/dev/zero of="$1" bs=65536 count="$2" 2>&1; rm -f "$1"'
_PROBE_BLOCK = 65536
_FOLDER_PROBE = 'LC_ALL=C; export LC_ALL; { mkdir -p "$1" && : >"$1/probe.$$" && rm -f "$1/probe.$$"; } 2>&1'
_REASON = re.compile(r"(?m)^.*(?:mkdir|sh|create)\b.*: ([A-Z][\w -]{3,60})\s*$")
_FULL = re.compile(r"no space left|quota exceeded|disk full", re.IGNORECASE)


class SSHTransport(Transport):
    """A worker at the other end of an SSH connection.

    Host keys are checked as strictly as OpenSSH's client does it, and never recorded here; logging in takes a key.
    A way that is cut, and a peer that hangs, are noticed within `patience_s` of the configuration.

    Args:
        name: the device, for messages.
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
        self._early = b""
        self._resumed = False

    def _connect(self) -> None:
        step = "network"
        try:
            self._connection = Connection(find_route(self._config), self._config.patience_s)
            self._connection.open()
            step = "work folder"
            self._bring_program(self._open_files())
            step = "Python"
            self._start_worker(self._connection)
        except StepError as error:
            self._disconnect(gently=False)
            # Some of it may be the other side's words.
            message, advice = printable(f"device {self.name}: {error.message}"), printable(error.advice)
            raise ConnectError(message, step=error.step, advice=advice, lasting=error.lasting) from error
        except (ChannelLostError, ChannelTimeoutError) as error:
            self._disconnect(gently=False)
            raise ConnectError(f"device {self.name}: {str(error) or 'no answer'}", step=step) from error
        except BaseException:
            self._disconnect(gently=False)
            raise

    def _send(self, data: bytes, deadline: Deadline) -> None:
        assert self._worker is not None
        self._worker.send(data, deadline)

    def _receive(self, deadline: Deadline) -> bytes:
        assert self._worker is not None
        if self._early:
            data, self._early = self._early, b""
        else:
            data = self._worker.receive(deadline)
        if not data:
            raise self._worker.end(END_S)
        return data

    def push(self, path: Path, sha256: str, suffix: str) -> None:
        """As every transport does it. A part that was there from an earlier try, and was wrong, is no reason to fail:
        the worker has thrown it away, and this time everything is sent."""
        self._resumed = False
        try:
            super().push(path, sha256, suffix)
        except WorkerError as error:
            if error.kind != "corrupt_artifact" or not self._resumed:
                raise
            super().push(path, sha256, suffix)

    def _transfer(self, path: Path, sha256: str) -> None:
        files = self._files or self._open_files()
        self._files = None  # an interruption would leave answers in its channel
        arrived = f"{self._work}/incoming/{sha256}"
        part, size = f"{arrived}.part", path.stat().st_size
        for may_pass in (True, False):
            try:
                with path.open("rb") as source:
                    self._resumed = files.bring(source, size, part, arrived)
                break
            except OSError as error:
                full = self._find_disk_full(error, part, size)
                for wrong in (part, arrived):  # there may be a hole in it; and a full disk is not kept full
                    files.remove(wrong)
                # A failure without a reason may be of a disk on which there is room again: that is tried, once.
                if full or error.errno != errno.EIO or not may_pass:
                    self._files = files
                    raise full or error from error
        self._files = files

    def _disconnect(self, *, gently: bool) -> None:
        connection, self._connection = self._connection, None
        worker, self._worker = self._worker, None
        self._files, self._early = None, b""
        if connection is None:
            return
        try:
            if worker is not None and connection.is_active:
                # By a thread of its own, for every word may get stuck in a connection that hangs.
                words = threading.Thread(target=self._part_from, args=(connection, worker, gently), daemon=True)
                words.start()
                words.join(FAREWELL_S)
            if worker is not None:
                worker.drain_stderr()
        finally:
            connection.close()

    def _part_from(self, connection: Connection, worker: Stream, gently: bool) -> None:
        """Ends the worker: it may hang, and would keep the device busy until it notices that it is alone."""
        with suppress(ChannelLostError, ChannelTimeoutError, OSError, EOFError):
            worker.finish()
            if not (gently and worker.wait_for_end(END_S)):
                connection.output(f"kill -9 {self._pid}", FAREWELL_S)
                worker.wait_for_end(FAREWELL_S)

    def _open_files(self) -> Files:
        assert self._connection is not None
        try:
            return Files(self._connection.run("sftp", subsystem=True))
        except ChannelLostError as error:
            if not self._connection.is_active:
                raise
            raise StepError(
                "work folder",
                f"files cannot be brought to {self._connection.hop}: {error}",
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
                    full = self._find_disk_full(error, unfinished, len(program.content))
                    files.remove(unfinished)
                    raise full or error from error
        except OSError as error:
            plain = error.errno in (errno.ENOSPC, errno.EACCES)
            reason = str(error.strerror) if plain else self._why_it_cannot_be_written()
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
        self._worker = connection.run(f"exec {shlex.join(words)}", self._note_stderr)
        version, deadline, greeting = "", Deadline(START_S), b""
        # Start-up files of the login shell may print something before.
        while not (found := re.search(rb"^latlab-worker (\d{1,10})\n", greeting, re.MULTILINE)):
            try:
                data = self._worker.receive(deadline)
            except ChannelTimeoutError:
                raise StepError("Python", f"{python} did not start within {START_S:g} s") from None
            greeting += data
            if checked := re.search(rb"^latlab-python (\d{1,4} \d{1,4})\n", greeting, re.MULTILINE):
                version = checked[1].decode().replace(" ", ".")
            if not data or len(greeting) > _LONGEST_GREETING:
                raise self._no_python(python, version)
        self._pid = int(found[1])
        self._early = greeting[found.end() :]

    def _no_python(self, python: str, version: str) -> Exception:
        assert self._worker is not None
        how = self._worker.end(END_S)
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

    def _find_disk_full(self, error: OSError, beside: str, size: int) -> OSError | None:
        """Whether the disk is full, or the user's share of it: SFTP has no word for that, so some bytes are written."""
        if error.errno != errno.EIO or self._connection is None:
            return None
        blocks = min(size // _PROBE_BLOCK + 1, 64)
        words = ["/bin/sh", "-c", _DISK_PROBE, "sh", f"{beside}.probe", str(blocks)]
        try:
            said = self._connection.output(f"exec {shlex.join(words)}", PROBE_S)
        except (ChannelLostError, ChannelTimeoutError):
            return None
        return OSError(errno.ENOSPC, "the device's disk is full") if _FULL.search(said) else None

    def _why_it_cannot_be_written(self) -> str:
        """In the device's words: SFTP says no more than "Failure" of a file system that is read-only."""
        said = ""
        if self._connection is not None:
            words = ["/bin/sh", "-c", _FOLDER_PROBE, "sh", self._work]
            with suppress(ChannelLostError, ChannelTimeoutError):
                said = self._connection.output(f"exec {shlex.join(words)}", PROBE_S)
        reason = _REASON.search(said[:10_000])
        return f"it cannot be written{f' ({reason[1]})' if reason else ''}"


def _absolute(path: str, home: str) -> str:
    """A path on the device, from the home folder where it is relative."""
    path = path.removeprefix("~/") if path != "~" else ""
    return (path if path.startswith("/") else f"{home.rstrip('/')}/{path}").rstrip("/") or "/"
