"""The login with a key: the inventory's, the agent's, or one of the usual files. Passwords are never used."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import PublicBlob, UnknownKeyType

from latlab.harness.transports.ssh.route import USUAL_KEYS, Hop, StepError

__all__ = ["log_in"]

STEP = "login"


@dataclass
class _KeyReport:
    """The outcome for each key, for the error message; it holds names of keys, never their content."""

    refused: list[str] = field(default_factory=list)
    locked: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def log_in(transport: paramiko.Transport, hop: Hop) -> None:
    """Authenticate on a connection whose host key was checked.

    Raises:
        StepError: there is no key, or the server accepts none.
    """
    tried = _KeyReport()
    with closing(_agent()) as agent:
        for name, key in _keys(hop, agent, tried):
            try:
                if not transport.auth_publickey(hop.user, key):
                    return
            except paramiko.BadAuthenticationType as error:
                raise StepError(
                    STEP,
                    f"{hop} lets nobody in with a key (it wants {', '.join(error.allowed_types)})",
                    "Set `PubkeyAuthentication yes` in its /etc/ssh/sshd_config.",
                    lasting=True,
                ) from None
            except (paramiko.SSHException, EOFError, OSError):
                tried.refused.append(name)
            else:  # a partial success
                raise StepError(STEP, f"{hop} wants more than a key, which latlab cannot give", lasting=True)
            if not transport.is_active():
                break
    raise _login_error(hop, tried, hung_up=not transport.is_active())


def _agent() -> paramiko.Agent:
    try:
        return paramiko.Agent()
    except (paramiko.SSHException, OSError) as error:
        raise StepError(STEP, f"the SSH agent does not work: {error}", "Is $SSH_AUTH_SOCK right?") from error


def _keys(hop: Hop, agent: paramiko.Agent, tried: _KeyReport) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield names and keys to try, each key once: servers hang up after some failures (OpenSSH's: after six)."""
    held = {key.asbytes(): key for key in agent.get_keys()}
    seen: set[bytes] = set()

    def of_files(paths: tuple[Path, ...], *, must_be: bool) -> Iterator[tuple[str, paramiko.PKey]]:
        for path in paths:
            key = _load(path, held, tried, must_be=must_be)
            if key is not None and key.asbytes() not in seen:
                seen.add(key.asbytes())
                yield str(path), key

    yield from of_files(hop.keys, must_be=True)
    if hop.only_keys:
        return
    for blob, key in held.items():
        if blob not in seen:
            seen.add(blob)
            yield f"{key.comment or key.get_name()} (agent)", key
    if not hop.keys:
        folder = Path("~/.ssh").expanduser()
        yield from of_files(tuple(folder / name for name in USUAL_KEYS), must_be=False)


def _load(
    path: Path, held: dict[bytes, paramiko.AgentKey], tried: _KeyReport, *, must_be: bool
) -> paramiko.PKey | None:
    """Return the key in a file, or the agent's where the file has a passphrase or is on a token; None if neither."""
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        if must_be:
            tried.missing.append(path)
            tried.unusable.append(f"{path} does not exist")
        return None
    except (TypeError, paramiko.PasswordRequiredException):  # cryptography raises TypeError if a passphrase is missing
        locked = True
    except (OSError, ValueError, UnsupportedAlgorithm, paramiko.SSHException, UnknownKeyType) as error:
        locked = False
        reason = f"{path} is no key that latlab can use ({getattr(error, 'strerror', None) or type(error).__name__})"
    if (key := held.get(_public(path))) is not None:
        return key
    if locked:
        tried.locked.append(path)
    else:
        tried.unusable.append(reason)
    return None


def _public(path: Path) -> bytes:
    """Return the public half of a key, from the `.pub` file next to the private one; b"" where there is none."""
    try:
        return PublicBlob.from_file(f"{path}.pub").key_blob
    except (OSError, ValueError, IndexError):
        return b""


def _login_error(hop: Hop, tried: _KeyReport, *, hung_up: bool) -> StepError:
    if tried.locked:
        files = ", ".join(map(str, tried.locked))
        others = f"; it refuses {', '.join(tried.refused)}" if tried.refused else ""
        return StepError(
            STEP,
            f"the key for {hop} is locked with a passphrase, and no agent holds it: {files}{others}",
            f"Unlock it for this login session: `ssh-add {tried.locked[0]}` (no agent? `eval $(ssh-agent)` first).",
            lasting=True,
        )
    if tried.refused:
        after = " and hung up" if hung_up else ""
        key = next((name for name in tried.refused if Path(name).is_file()), None)
        return StepError(
            STEP,
            f"{hop} refused{after}: {', '.join([*tried.refused, *tried.unusable])}",
            f"Is the user right? Let the key in: `{hop.command('ssh-copy-id', *(['-i', key] if key else []))}`. "
            "If you have many keys, name the right one with `key` in the inventory.",
            lasting=True,
        )
    make, let_in, where = ["ssh-keygen", "-t", "ed25519"], ["ssh-copy-id"], ""
    if tried.missing:
        file = str(tried.missing[0])
        make, let_in = [*make, "-f", file], [*let_in, "-i", file]
        where = "Does `key` in the inventory (or IdentityFile in ~/.ssh/config) name the right file? If so: "
    return StepError(
        STEP,
        f"there is no key to log in to {hop} with{''.join(f': {one}' for one in tried.unusable)}",
        f"{where}{'make' if where else 'Make'} one with `{shlex.join(make)}`, and let it in: `{hop.command(*let_in)}`.",
        lasting=True,
    )
