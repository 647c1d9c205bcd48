"""Commands of latlab as processes that have imported everything already: one takes tenths of a second, not seconds.

A server imports what commands need and forks a process for each, which runs latlab's own `main` with its own words,
folder, standard streams, session and, if asked for, user.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["NOBODY", "Command", "CommandServer"]

NOBODY = 65534
_PROGRAM = """
import json, os, sys
import matplotlib.pyplot, onnx, pandas, pyarrow.parquet, rich.live, safetensors.numpy, scipy.stats, sqlalchemy, torch
import typer
# Not onnxruntime: it starts threads, and a process that is forked from it does not end.
import latlab.harness.lab, latlab.predictors, latlab.search_spaces
from latlab.harness.cli.main import main

for name in latlab.search_spaces.names():
    latlab.search_spaces.get(name)


def run(words, folder, said, user, environment):
    os.environ.update(environment)
    os.setsid()
    os.chdir(folder)
    for number, path in enumerate(("/dev/null", said + "/stdout.txt", said + "/stderr.txt")):
        opened = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if number else 0), 0o666)
        os.dup2(opened, number)
        os.close(opened)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    sys.argv = ["latlab", *words]
    main()


for line in sys.stdin:
    what, *arguments = json.loads(line)
    if what == "start":
        answer = os.fork()
        if not answer:
            run(*arguments)
    else:
        pid, status = os.waitpid(arguments[0], os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if pid else None
    print(json.dumps(answer), flush=True)
"""


@dataclass
class Command:
    """A command that was started."""

    pid: int
    said: Path
    _server: CommandServer
    exit_code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.exit_code is None:
            self.exit_code = self._server.ask("poll", self.pid)
        return self.exit_code

    def wait(self, timeout_s: float = 60) -> int:
        """Return the exit code when it has ended; after `timeout_s` it is killed, and that is an error."""
        until = time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                self.kill()
                raise AssertionError(f"it did not end within {timeout_s:g} s: {self.stderr}")
            time.sleep(0.005)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command and all that it has started."""
        for pid in self.others() + ([self.pid] if self.poll() is None else []):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while self.poll() is None:
            time.sleep(0.002)

    def others(self) -> list[int]:
        """Return the processes that it has started, and that run still."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                try:
                    words = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(words[3]) == self.pid and words[0] not in "ZX":
                    found.append(int(entry.name))
        return found

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return _read(self.said / "stdout.txt")

    @property
    def stderr(self) -> str:
        """What it has said on stderr."""
        return _read(self.said / "stderr.txt")


class CommandServer:
    """A server that starts commands. Use it in a `with` block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(
        self,
        words: Sequence[str],
        folder: Path,
        *,
        said: Path | None = None,
        user: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Command:
        """Start a command.

        Args:
            words: the command line, without `latlab`.
            folder: becomes the current one.
            said: the folder that gets `stdout.txt` and `stderr.txt`; default: the current one.
            user: whom the process becomes; needs root.
            environment: further variables.
        """
        said = said or folder
        return Command(self.ask("start", list(words), str(folder), str(said), user, environment or {}), said, self)

    def ask(self, *question: Any) -> Any:
        """Return the server's answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _read(path: Path) -> str:
    """Return what is in a file, which a command that has just begun may not have made yet."""
    return path.read_text(errors="replace") if path.exists() else ""
