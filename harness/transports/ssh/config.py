"""The inventory's entry of a device that is reached over SSH."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from latlab.harness.transports.config import (
    PHONES_ONLY,
    DeviceConfig,
    File,
    Port,
    Problem,
    bare_host,
    benchmark_model_targets,
    missing_file,
)

__all__ = ["SSHDevice"]


class SSHDevice(DeviceConfig):
    """A Linux machine with an SSH server: a Raspberry Pi, a Jetson, a workstation, a server."""

    transport_factory: ClassVar[str] = "latlab.harness.transports.ssh.transport:SSHTransport"
    transport: Literal["ssh"] = "ssh"
    host: str = Field(min_length=1, description="Host name, address, or an alias of ~/.ssh/config")
    port: Port | None = Field(default=None, description="Default: ~/.ssh/config's, else 22")
    user: str | None = Field(default=None, description="Default: ~/.ssh/config's, else yours")
    key: File | None = Field(default=None, description="Private key; default: your agent's and your usual ones")
    known_hosts: File | None = Field(default=None, description="Host keys; default: ~/.ssh/known_hosts")
    jump: str | list[str] | None = Field(
        default=None, description="Hosts to go through, nearest first: [USER@]HOST[:PORT]"
    )
    python: str | None = Field(default=None, description="Interpreter on the device; default: python3")
    work: str = Field(
        default=".cache/latlab", min_length=1, description="Folder on the device, from the user's home where relative"
    )
    patience_s: float = Field(
        default=4.0, gt=0, le=3600, description="Seconds without a sign of life after which the device counts as lost"
    )

    @field_validator("host")
    @classmethod
    def _only_a_host(cls, host: str) -> str:
        bare_host(host)
        return host

    def problems(self) -> Iterator[Problem]:
        yield from benchmark_model_targets(self, PHONES_ONLY)

    def missing_files(self) -> Iterator[Problem]:
        yield from missing_file("key", self.key)

    def shell_command(self, command: str) -> str:
        jumps = [self.jump] if isinstance(self.jump, str) else self.jump or []
        options = [
            *(["-p", str(self.port)] if self.port else []),
            *(["-i", str(self.key)] if self.key else []),
            *(["-J", ",".join(jumps)] if jumps else []),
        ]
        return f"{shlex.join(['ssh', *options, f'{self.user}@{self.host}' if self.user else self.host])} {command}"

    @property
    def address(self) -> str:
        return f"{f'{self.user}@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"
