"""The machines to log in to on the way to a device, and the login for each.

The inventory's settings come first, then those of ~/.ssh/config, then the defaults of OpenSSH's client.
"""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from latlab.harness.transports.ssh.config import SSHDevice

__all__ = ["Hop", "StepError", "find_route"]

USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
GLOBAL_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
MAX_HOPS = 8
_JUMP = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\[\]\s]+)(?::(?P<port>\d{1,5}))?")


class StepError(Exception):
    """A step of connecting failed. It holds what `ConnectError` needs, apart from the device's name.

    Args:
        step: the one of `SSHTransport.STEPS` that failed.
        message: what went wrong.
        advice: what a person can do about it.
        lasting: a retry is useless until a person has done that.
    """

    def __init__(self, step: str, message: str, advice: str = "", *, lasting: bool = False) -> None:
        super().__init__(message)
        self.step, self.message, self.advice, self.lasting = step, message, advice, lasting


@dataclass(frozen=True)
class Hop:
    """A machine to log in to: the device or a jump host.

    Args:
        host: name or address, as ~/.ssh/config resolves it.
        port: TCP port of its SSH server.
        user: the user to log in as.
        alias: its name in known_hosts, where that is not the host's.
        keys: files of private keys to try before any other.
        only_keys: try no key but `keys`.
        known_hosts: files with host keys; a missing file is not an error.
        via: the hops before this one, nearest first.
    """

    host: str
    port: int
    user: str
    alias: str | None
    keys: tuple[Path, ...]
    only_keys: bool
    known_hosts: tuple[Path, ...]
    via: tuple[Hop, ...] = ()

    def __str__(self) -> str:
        return f"{self.user}@{self.host} port {self.port}"

    @property
    def known_as(self) -> str:
        """The machine's name in known_hosts: `host`, or `[host]:port` where the port is not 22."""
        return self.alias or (self.host if self.port == 22 else f"[{self.host}]:{self.port}").lower()

    def command(self, program: str = "ssh", *options: str) -> str:
        """Return the shell command with which a person logs in with OpenSSH's client; advice in errors quotes it."""
        words = [program, *options]
        if self.via:
            # Not -J: ssh-copy-id does not support it.
            words += ["-o", "ProxyJump=" + ",".join(f"{hop.user}@{hop._bracketed}:{hop.port}" for hop in self.via)]
        if self.alias:
            words += ["-o", f"HostKeyAlias={self.alias}"]
        if self.port != 22:
            words += ["-p", str(self.port)]
        return shlex.join([*words, f"{self.user}@{self.host}"])

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def find_route(config: SSHDevice) -> list[Hop]:
    """Return the machines to log in to, nearest first; the device is the last.

    Raises:
        StepError: ~/.ssh/config or the inventory has a setting that is not supported or makes no sense.
    """
    settings = _read_settings()
    device, jump = _look_up(settings, config, config.host, config.user, config.port, is_device=True)
    if config.jump is not None:
        jump = config.jump if isinstance(config.jump, str) else ",".join(config.jump)
    hops: list[Hop] = []
    for hop in [*_jumps(settings, config, jump), device]:
        hops.append(Hop(**{**vars(hop), "via": tuple(hops)}))
    return hops


def _jumps(settings: paramiko.SSHConfig, config: SSHDevice, jump: str, depth: int = 0) -> Iterator[Hop]:
    """Yield the hosts of a list such as `a,user@b:2222`, after the jump hosts that the first may have of its own."""
    if jump.strip().lower() in ("", "none"):
        return
    for index, spec in enumerate(jump.split(",")):
        if not (parts := _JUMP.fullmatch(spec.strip())):
            raise StepError(
                "address", f"{spec.strip()!r} is no jump host", "Write it as [USER@]HOST[:PORT].", lasting=True
            )
        port = int(parts["port"]) if parts["port"] else None
        hop, before = _look_up(settings, config, parts["host"].strip("[]"), parts["user"], port, is_device=False)
        if index == 0:
            if depth >= MAX_HOPS:
                raise StepError("address", f"the jump hosts of {config.host} go round in circles", lasting=True)
            yield from _jumps(settings, config, before, depth + 1)
        yield hop


def _look_up(
    settings: paramiko.SSHConfig, config: SSHDevice, name: str, user: str | None, port: int | None, *, is_device: bool
) -> tuple[Hop, str]:
    """Return a machine's login, and its jump hosts according to ~/.ssh/config."""
    try:
        found = settings.lookup(name)
        port = port or int(found.get("port", 22))
        keys = tuple(Path(file).expanduser() for file in found.get("identityfile", []))
        only_keys = found.get("identitiesonly", "no") == "yes"
        own_known_hosts = _paths(found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"))
        global_known_hosts = _paths(found.get("globalknownhostsfile", str(GLOBAL_KNOWN_HOSTS)))
    except (paramiko.SSHException, ImportError, LookupError, ValueError, OSError) as error:
        raise StepError("address", f"~/.ssh/config cannot be followed for {name}: {error}", lasting=True) from error
    jump = found.get("proxyjump", "")
    if found.get("proxycommand") and not jump and not (is_device and config.jump is not None):
        raise StepError(
            "address",
            f"~/.ssh/config has a ProxyCommand for {name}, which latlab does not run",
            "Use ProxyJump there, or `jump` in the inventory.",
            lasting=True,
        )
    if config.key is not None:
        # For the device, the inventory's key is the only one; for a jump host, it is one more to try.
        key = config.key.expanduser()
        keys, only_keys = ((key,), True) if is_device else ((*keys, key), only_keys)
    if config.known_hosts is not None:
        mine = config.known_hosts.expanduser()
        own_known_hosts = [mine] if is_device else [mine, *own_known_hosts]
    hop = Hop(
        host=found["hostname"],
        port=port,
        user=user or found.get("user") or getpass.getuser(),
        alias=found.get("hostkeyalias"),
        keys=keys,
        only_keys=only_keys,
        known_hosts=(*own_known_hosts, *global_known_hosts),
    )
    return hop, jump


def _paths(text: str) -> list[Path]:
    return [Path(word).expanduser() for word in shlex.split(text)]


def _read_settings() -> paramiko.SSHConfig:
    path = Path("~/.ssh/config").expanduser()
    try:
        return paramiko.SSHConfig.from_text("\n".join(_lines(path))) if path.exists() else paramiko.SSHConfig()
    except (paramiko.SSHException, ValueError, OSError) as error:
        raise StepError("address", f"cannot read {path}: {error}", lasting=True) from error


def _lines(path: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a file and of those that it includes: paramiko does not follow `Include`."""
    section = "Host *"
    for line in path.read_text().splitlines():
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if keyword.lower() in ("host", "match"):
            section = line
        if keyword.lower() != "include" or depth >= MAX_HOPS:
            yield line
            continue
        for included in _included(rest):
            yield from _lines(included, depth + 1)
            yield section  # the section of the including file goes on


def _included(patterns: str) -> Iterable[Path]:
    base = os.path.expanduser("~/.ssh")
    for pattern in shlex.split(patterns):
        yield from map(Path, sorted(glob.glob(os.path.join(base, os.path.expanduser(pattern)))))
