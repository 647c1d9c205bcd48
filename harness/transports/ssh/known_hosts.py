"""The check of host keys against known_hosts files, and the advice about a key that they do not have.

paramiko's own reader is not used: it keeps no line numbers, supports neither patterns nor `@revoked`, and fails on a
damaged line. The format is described in sshd(8), under "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from latlab.harness.transports.ssh.route import Hop, StepError

__all__ = ["KnownHost", "check_host_key", "fingerprint", "read_known_hosts"]

STEP = "host key"


@dataclass(frozen=True)
class KnownHost:
    """A line of a known_hosts file."""

    file: Path
    line: int
    marker: str
    """`@revoked`, `@cert-authority` or ""."""
    names: str
    key_type: str
    key: bytes

    def covers(self, name: str) -> bool:
        """Return whether the line is about the machine of this name."""
        covered = False
        for pattern in self.names.split(","):
            if pattern.startswith("|1|"):
                covered |= _is_hash_of(pattern, name)
            elif pattern.startswith("!"):
                if _matches(pattern[1:], name):
                    return False
            else:
                covered |= _matches(pattern, name)
        return covered


def fingerprint(key: bytes) -> str:
    """Return the SHA-256 fingerprint of a public key, as OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def read_known_hosts(files: Iterable[Path], name: str) -> list[KnownHost]:
    """Return the lines about a machine, without certificate authorities: certificates are not supported.

    Args:
        files: known_hosts files; those that do not exist are skipped.
        name: the machine's name in them (`Hop.known_as`).

    Raises:
        StepError: a file exists and cannot be read.
    """
    found = []
    for file in files:
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StepError(STEP, f"cannot read {file}: {error.strerror}", lasting=True) from error
        for number, line in enumerate(lines, 1):
            known = _parse(file, number, line)
            if known and known.marker != "@cert-authority" and known.covers(name):
                found.append(known)
    return found


def check_host_key(hop: Hop, known: list[KnownHost], key_type: str, key: bytes) -> None:
    """Check a machine's key against what is known of it.

    Args:
        hop: the machine.
        known: the lines of known_hosts files about it.
        key_type: the type of the key that it presents.
        key: that key.

    Raises:
        StepError: the key is unknown, revoked or another one than before.
    """
    shown = f"{key_type} {fingerprint(key)}"
    for entry in known:
        if entry.marker == "@revoked" and entry.key == key:
            raise StepError(
                STEP,
                f"the key of {hop} is revoked ({shown}; {entry.file} line {entry.line})",
                "Do not use this machine before it has a new key.",
                lasting=True,
            )
    trusted = [entry for entry in known if not entry.marker]
    if any(entry.key == key for entry in trusted):
        return
    if not trusted:
        raise StepError(STEP, f"the key of {hop} is not known yet: {shown}", _how_to_record(hop, []), lasting=True)
    entry = next((entry for entry in trusted if entry.key_type == key_type), trusted[0])
    forget = f"ssh-keygen -R {shlex.quote(hop.known_as)} -f {shlex.quote(str(entry.file))}"
    raise StepError(
        STEP,
        f"this may be an attack: {hop} has another key than it had. It shows {shown}, "
        f"but {entry.file} line {entry.line} says {entry.key_type} {fingerprint(entry.key)}",
        "Only if you know why it changed (a new system on the device, say): "
        + _how_to_record(hop, [f"Forget the old key: `{forget}`."]),
        lasting=True,
    )


def _how_to_record(hop: Hop, before: list[str]) -> str:
    """Return the steps to record a key; `before` are further steps to take before that."""
    file = hop.known_hosts[0]
    options = [] if file == Path("~/.ssh/known_hosts").expanduser() else ["-o", f"UserKnownHostsFile={file}"]
    look = f"Look at its key: `ssh-keyscan -p {hop.port} {shlex.quote(hop.host)} | ssh-keygen -lf -`."
    steps = [
        *([] if hop.via else [look]),
        "Compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says on the machine itself, and go on "
        "only if it is the same.",
        *before,
        f"Record it: `{hop.command('ssh', *options)}`, and answer yes.",
    ]
    return " ".join(f"({number}) {step}" for number, step in enumerate(steps, 1))


def _parse(file: Path, number: int, line: str) -> KnownHost | None:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if len(fields) < 3:
        return None
    try:
        key = base64.b64decode(fields[2], validate=True)
    except ValueError:  # not base64, or not ASCII
        return None
    return KnownHost(file, number, marker, fields[0], fields[1], key)


def _matches(pattern: str, name: str) -> bool:
    # Not fnmatch: square brackets are literal here, as in [host]:port. The atomic groups keep the first match after
    # each star, without backtracking, so that a pattern with many stars takes no more time than others.
    first, *rest = [re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", pattern)]
    expression = first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + "".join(f".*{part}" for part in rest[-1:])
    return re.fullmatch(expression, name, re.IGNORECASE | re.DOTALL) is not None


def _is_hash_of(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        expected = base64.b64decode(digest, validate=True)
        salted = hmac.digest(base64.b64decode(salt, validate=True), name.encode(), "sha1")
    except ValueError:
        return False
    return hmac.compare_digest(salted, expected)
