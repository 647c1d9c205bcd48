"""Machines that are reached by SSH."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from .machine import Machine
from .network import Network
from .ssh import Key, SSHAccess, server_config

_SSHD = r"sshd(:| |$)"


class SSHMachine(Machine):
    """A machine with a real sshd on port 22, where root may log in with the client's key."""

    user = "root"
    home = "/root"
    port = 22
    startup_s = 30.0
    """Seconds within which its server must answer."""
    python: str
    """The interpreter that sees whatever runtimes the machine has."""

    def __init__(
        self,
        network: Network,
        name: str,
        folder: Path,
        client_key: Key,
        layers: Sequence[Path],
        shared: Sequence[Path] = (),
        disguise: Mapping[str, Path] | None = None,
        disk_mb: int = 256,
    ) -> None:
        self._client_key = client_key
        self._host_key = Key.generate(folder / "host_key")
        super().__init__(network, name, folder, layers, shared, disguise, disk_mb)

    @property
    def access(self) -> SSHAccess:
        """How to log in: address, port, user, keys, known_hosts."""
        return SSHAccess(self.address, self.port, self.user, self._host_key.public, self._client_key.private)

    def start_services(self) -> None:
        if not self.path("/etc/ssh/own_config").exists():
            self._configure()
        self.run("mkdir", "-p", "/run/sshd")
        self.start_sshd()

    def start_sshd(self) -> None:
        """Starts the server; returns when it can be reached."""
        self.start(self._sshd, "-D", "-e", "-f", "/etc/ssh/own_config")
        self.access.wait(self.startup_s)

    def kill_sshd(self) -> list[int]:
        """Kills the server and all that serve a session; returns their ids."""
        return self.kill(_SSHD)

    _sshd = "/usr/sbin/sshd"

    def _configure(self) -> None:
        folder = self.path("/etc/ssh")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._host_key.private, folder / "own_key")
        (folder / "own_authorized_keys").write_text(self._client_key.public + "\n")
        (folder / "own_config").write_text(server_config(self.port, "/etc/ssh/own_key", "/etc/ssh/own_authorized_keys"))
