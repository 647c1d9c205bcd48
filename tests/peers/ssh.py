"""OpenSSH's server, run by a peer or by the test process itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .namespaces import find_program, run
from .processes import wait_until


@dataclass(frozen=True)
class Key:
    """A key pair."""

    private: Path

    @classmethod
    def generate(cls, private: Path) -> Key:
        run(find_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", private.name, "-f", str(private))
        return cls(private)

    @property
    def public(self) -> str:
        """As authorized_keys has it: type, base64, comment."""
        return self.private.with_name(f"{self.private.name}.pub").read_text().strip()


@dataclass(frozen=True)
class SSHAccess:
    """The facts that a client needs to log in to a server."""

    address: str
    port: int
    user: str
    host_key: str
    """Public: type, base64, comment."""
    client_key: Path
    """Private, without a passphrase."""

    @property
    def known_hosts(self) -> str:
        """The text of a known_hosts file that has this server only."""
        return f"{f'[{self.address}]:{self.port}' if self.port != 22 else self.address} {self.host_key}\n"

    def command(self, folder: Path, *remote: str, options: Sequence[str] = ()) -> list[str]:
        """Return the command line of OpenSSH's client that runs a command; it finds the host's key in `folder`."""
        known_hosts = folder / "known_hosts"
        known_hosts.write_text(self.known_hosts)
        settings = [
            f"UserKnownHostsFile={known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            *options,
        ]
        flags = [word for setting in settings for word in ("-o", setting)]
        ssh = [find_program("ssh"), "-F", "none", *flags, "-i", str(self.client_key), "-p", str(self.port)]
        return [*ssh, f"{self.user}@{self.address}", *remote]

    def wait(self, seconds: float = 15) -> None:
        """Return as soon as the server greets."""
        wait_until(self._greets, f"no sshd at {self.address} port {self.port}", seconds)

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=10) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def server_config(port: int, host_key: str, authorized_keys: str, address: str = "0.0.0.0") -> str:
    """The text of an sshd_config: keys only, no PAM, one address; the paths are as sshd sees them."""
    lines = [
        f"Port {port}",
        f"ListenAddress {address}",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {authorized_keys}",
        "StrictModes no",  # the keys may lie in a temporary folder
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "UseDNS no",
        "PidFile none",
        "PrintMotd no",
        "PrintLastLog no",
        "MaxStartups 100",
        "LogLevel VERBOSE",
        "Subsystem sftp internal-sftp",
    ]
    return "\n".join(lines) + "\n"
