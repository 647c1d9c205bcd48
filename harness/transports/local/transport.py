"""The transport to the machine that latlab runs on: the same worker and protocol as on any other device."""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from platformdirs import user_cache_path

from latlab.harness.paths import cache_folder
from latlab.harness.transports.base import (
    ChannelClosedError,
    ChannelTimeoutError,
    ConnectError,
    Deadline,
    Transport,
)
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.worker_archive import worker_program

__all__ = ["LocalTransport", "default_work_folder"]

END_S = 1.0
"""Seconds that a worker may take to end by itself: it needs milliseconds, unless a runtime is computing."""
_CHUNK_BYTES = 1 << 16
_COPY_BYTES = 1 << 20


def default_work_folder() -> Path:
    """Return the default folder for the local worker's model files and its lock, in the user's cache."""
    return user_cache_path("latlab") / "worker"


def _write_new(path: Path, content: bytes) -> None:
    """Write a file into a folder that others can write to, without following a link at that path."""
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


class LocalTransport(Transport):
    """A worker as a child process. Model files reach it as hard links, or as copies where those are impossible.

    Args:
        name: the device, for messages.
        python: the interpreter that has the inference runtimes; default: the one that runs latlab.
        work: the worker's folder, which one worker at a time uses.
    """

    STEPS = ("work folder", "Python")

    def __init__(self, name: str = "local", python: Path | None = None, work: Path | None = None) -> None:
        super().__init__(name)
        self._python = python or Path(sys.executable)
        # Absolute, because the worker runs inside it.
        self._work = (work or default_work_folder()).absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._in_use = threading.Lock()
        """Held while a thread uses the worker's streams, so that another one that ends the worker leaves them open."""

    @classmethod
    def from_config(cls, name: str, config: LocalDevice) -> Self:
        """Return the transport that the inventory describes; it uses latlab's cache folder where none is named."""
        return cls(name, config.python, config.work or cache_folder() / "worker")

    @property
    def pid(self) -> int | None:
        """The worker's process id, or None while there is no worker."""
        return self._process.pid if self._process else None

    def _connect(self) -> None:
        program = worker_program()
        path = self._work / program.name
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            (self._work / "incoming").mkdir(exist_ok=True)
            for folder in (self._work, self._work / "incoming"):
                if folder.is_symlink():  # an earlier worker may have planted it
                    raise OSError(errno.ELOOP, f"{folder} is a link, not a folder")
            if path.is_symlink() or not path.is_file() or path.read_bytes() != program.content:
                _write_new(path, program.content)
        except OSError as error:
            full = error.errno == errno.ENOSPC
            raise ConnectError(
                f"device {self.name}: cannot use the work folder {self._work}: {error.strerror}",
                step="work folder",
                advice="Free some space." if full else "Name another with `work` in the inventory.",
                lasting=True,
            ) from error
        # faulthandler: when native code crashes, stderr shows where.
        command = [os.path.abspath(self._python), "-X", "faulthandler", str(path), "--work", str(self._work)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._work,
                bufsize=0,
                start_new_session=True,  # Ctrl-C in the terminal reaches the controller alone
            )
        except OSError as error:
            raise ConnectError(
                f"device {self.name}: cannot start {self._python}: {error.strerror}",
                step="Python",
                advice="Name another interpreter with `python` in the inventory.",
                lasting=True,
            ) from error
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)

    def _send(self, data: bytes, deadline: Deadline) -> None:
        with self._in_use:
            self._write(data, deadline)

    def _receive(self, deadline: Deadline) -> bytes:
        with self._in_use:
            return self._read(deadline)

    def _write(self, data: bytes, deadline: Deadline) -> None:
        stdin, _, stderr = self._descriptors()
        while data:
            readable, writable, _ = select.select([stderr], [stdin], [], deadline.left)
            if readable and not self._drain(stderr):
                raise ChannelClosedError(self._how_it_ended())
            if writable:
                try:
                    data = data[os.write(stdin, data) :]
                except BrokenPipeError:
                    raise ChannelClosedError(self._how_it_ended()) from None
            elif not deadline.left:  # `select` may return before: a worker may write to stderr without end
                raise ChannelTimeoutError

    def _read(self, deadline: Deadline) -> bytes:
        _, stdout, stderr = self._descriptors()
        watched = [stdout, stderr]
        while True:
            readable, _, _ = select.select(watched, [], [], deadline.left)
            if stderr in readable and not self._drain(stderr):
                watched.remove(stderr)  # a closed stream is always readable
            if stdout in readable:
                data = os.read(stdout, _CHUNK_BYTES)
                if not data:
                    raise ChannelClosedError(self._how_it_ended())
                return data
            if not deadline.left:
                raise ChannelTimeoutError

    def _transfer(self, path: Path, sha256: str) -> None:
        # The worker owns the folder and may have replaced it by a link, which must not be followed.
        try:
            folder = os.open(self._work / "incoming", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise OSError(error.errno, f"{self._work / 'incoming'} is not the folder that it was") from error
        try:
            unfinished = f"{sha256}.part"
            for stale in (sha256, unfinished):
                with suppress(FileNotFoundError):
                    os.unlink(stale, dir_fd=folder)
            try:
                os.link(path, unfinished, dst_dir_fd=folder)
            except OSError:  # another file system, or one without hard links
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with open(os.open(unfinished, flags, 0o666, dir_fd=folder), "wb") as copy, path.open("rb") as file:
                    shutil.copyfileobj(file, copy, _COPY_BYTES)
            os.rename(unfinished, sha256, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)

    def _disconnect(self, *, gently: bool) -> None:
        if not self._in_use.acquire(blocking=False):
            process = self._process
            if process is not None:
                _kill(process)  # the other thread then reads the end of its output, and closes everything
            return
        try:
            process, self._process = self._process, None
            if process is not None:
                self._end(process, gently)
        finally:
            self._in_use.release()

    def _end(self, process: subprocess.Popen[bytes], gently: bool) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with suppress(OSError):
            process.stdin.close()  # the worker ends when its stdin does
        if gently:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
        if process.poll() is None:
            _kill(process)
            process.wait()
        self._drain(process.stderr.fileno())
        process.stdout.close()
        process.stderr.close()

    def _descriptors(self) -> tuple[int, int, int]:
        process = self._process
        if process is None:  # closed by another thread
            raise ChannelClosedError("was ended")
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        return process.stdin.fileno(), process.stdout.fileno(), process.stderr.fileno()

    def _drain(self, stderr: int) -> bool:
        """Read the stderr that has arrived and return False at its end."""
        try:
            data = os.read(stderr, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._note_stderr(data)
        return bool(data)

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"was killed by {name}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
