"""Namespaces that live until a test ends them, or at most until the test process ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import NoReturn

import pytest

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}


def unavailable(reason: str) -> NoReturn:
    """Skips the test, since a peer cannot be had here; where LATLAB_REQUIRE_PEERS is set, it fails."""
    if os.environ.get("LATLAB_REQUIRE_PEERS"):
        pytest.fail(f"LATLAB_REQUIRE_PEERS is set, but {reason}")
    pytest.skip(reason)


def find_program(name: str) -> str:
    """Return the path of a program, also of one for administrators; skip the test where there is none."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{ENVIRONMENT['PATH']}")
    if path is None:
        unavailable(f"{name} is not installed")
    return path


def require_namespaces() -> None:
    """Skips the test where peers cannot have namespaces of their own."""
    if os.name != "posix" or os.geteuid() != 0:
        unavailable("peers need root, for namespaces of their own")
    for program in ("unshare", "nsenter", "ip", "mount"):
        find_program(program)
    if tried := run("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true", check=False).stderr:
        unavailable(f"no namespaces on this machine: {tried.strip()}")


def run(*command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a short command of this machine; what it wrote to stderr is part of the error."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done


class Holder:
    """A process that keeps namespaces alive. It ends when its stdin does, so at the latest with the test process.

    Args:
        launcher: the command that makes or enters the namespaces, e.g. `unshare --net`.
        script: a shell script that prepares them; its arguments are `$1` and so on. What it prints is `words`.
        at_the_end: a script that undoes what does not vanish with the namespaces, also when the test process is
            killed; `release` runs it, and `kill` does not.
    """

    def __init__(self, launcher: Sequence[str], script: str, *arguments: str, at_the_end: str = "") -> None:
        # In a pid namespace it is the first process, and so inherits orphans: the kernel is to reap them.
        hold = f"cat\n{at_the_end}" if at_the_end else "exec env --ignore-signal=CHLD cat"
        shell = ["sh", "-ec", f"{script}\necho\n{hold}", "sh", *arguments]
        self._process = subprocess.Popen(
            [*launcher, *shell],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the test, which then takes its peers down in order
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise RuntimeError(f"cannot prepare namespaces: {self._process.communicate()[1].strip()}")
        self.words = line.split()

    def release(self) -> None:
        """Ends the process, after its script for the end."""
        self._process.communicate(timeout=60)

    def kill(self) -> None:
        """Ends the process, at once; namespaces that nobody else is in end with it."""
        self._process.kill()
        self._process.communicate()
