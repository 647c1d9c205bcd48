"""The simplest SSH peer: an sshd of the user's own on the loopback interface. It needs no root."""

from __future__ import annotations

import getpass
import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from .namespaces import find_program
from .processes import command_line, descendants, status, wait_until
from .ssh import Key, SSHAccess, server_config


class LoopbackHost:
    """This machine, reached by SSH: its files and processes are the test's own.

    Args:
        folder: an empty folder, for keys and log; `home` in it may serve for the worker's files.
    """

    address = "127.0.0.1"
    python = sys.executable

    def __init__(self, name: str, folder: Path, client_key: Key) -> None:
        self.name = name
        self.user = getpass.getuser()
        self.port = _free_port()
        self.log = folder / "log"
        self.home = str(folder / "home")
        Path(self.home).mkdir()
        self._client_key = client_key
        self._host_key = Key.generate(folder / "host_key")
        self._config = folder / "sshd_config"
        authorized_keys = folder / "authorized_keys"
        authorized_keys.write_text(client_key.public + "\n")
        self._config.write_text(
            server_config(self.port, str(self._host_key.private), str(authorized_keys), self.address)
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # root's sshd wants it, and the service that makes it
        self._sshd: subprocess.Popen[bytes] | None = None
        self.start_sshd()

    @property
    def access(self) -> SSHAccess:
        """How to log in: address, port, user, keys, known_hosts."""
        return SSHAccess(self.address, self.port, self.user, self._host_key.public, self._client_key.private)

    def path(self, path: str) -> Path:
        """One of its files, as the test reaches it."""
        return Path(path)

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def is_running(self, pid: int) -> bool:
        return bool(status(pid))

    def start_sshd(self) -> None:
        """Starts the server; returns when it can be reached."""
        with self.log.open("ab") as log:
            self._sshd = subprocess.Popen(
                [find_program("sshd"), "-D", "-e", "-f", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.access.wait()

    def kill_sshd(self) -> list[int]:
        """Kills the server and all that serve a session; returns their ids."""
        if self._sshd is None:
            return []
        pids = [self._sshd.pid, *(pid for pid in descendants(self._sshd.pid) if "sshd" in command_line(pid))]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._sshd.wait()
        self._sshd = None
        wait_until(lambda: not any(map(self.is_running, pids)), f"sshd still runs: {pids}")
        return pids

    def close(self) -> None:
        self.kill_sshd()


def _free_port() -> int:
    """Return a free port that no outgoing connection gets, so that it is still free when the server is back."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")
