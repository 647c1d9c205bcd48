"""Who may see the page: the token, sessions after a login, and the names and origins that requests may bear.

On the loopback the machine's own users are trusted, but no web page that their browser has open: a request must name
this server as its host, so that a foreign name that is made to point here (DNS rebinding) is refused, and one that a
page of another origin makes is refused, too. Beyond the loopback there is a token, and nothing without it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from latlab.harness.errors import BadInputError

__all__ = ["COOKIE", "TOKEN_VARIABLE", "Access", "Refusal", "is_loopback", "read_token"]

TOKEN_VARIABLE = "LATLAB_DASHBOARD_TOKEN"
LEAST_TOKEN, MOST_TOKEN = 16, 1024
"""Characters of a token."""
COOKIE = "latlab_dashboard"
SESSION_S = 12 * 3600.0
"""Seconds after which one has to log in again."""
MOST_SESSIONS = 1000
OPEN_PATHS = ("/login", "/page.css")
"""What is shown without a login."""
DATA_PATHS = ("/live", "/metrics")
"""What only pages of this server may ask for, and programs that are no browsers."""


class Refusal(NamedTuple):
    """Why a request is not answered, with the status of HTTP."""

    status: int
    reason: str


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(file: Path | None) -> str | None:
    """Return the token in a file, else that in the environment, else None. It is never a word of the command.

    Raises:
        BadInputError: if the file cannot be read, others may read it, or the token is too short.
    """
    where = str(file) if file is not None else f"${TOKEN_VARIABLE}"
    if file is not None:
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                text = opened.read(MOST_TOKEN + 2).decode()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise BadInputError(f"cannot read the token in {file}: {reason}", _HOW) from error
        if mode & 0o077:
            raise BadInputError(f"other users can read the token in {file}", f"chmod 600 {file}")
    elif os.environ.get(TOKEN_VARIABLE):
        text = os.environ[TOKEN_VARIABLE]
    else:
        return None
    token = text.strip()
    if not (LEAST_TOKEN <= len(token) <= MOST_TOKEN and token.isascii() and token.isprintable()):
        raise BadInputError(
            f"the token in {where} must have {LEAST_TOKEN} to {MOST_TOKEN} printable ASCII characters in one line", _HOW
        )
    return token


_HOW = "For example: (umask 077; openssl rand -hex 24 > token), then --token-file token."


@dataclass
class Access:
    """The rules for requests to one server.

    Args:
        host: where it listens.
        token: None on the loopback, if everybody on this machine may look.
        names: further host names under which it is reached, such as that of a proxy.

    Raises:
        BadInputError: if there is no token, and others can reach the server.
    """

    host: str
    token: str | None = None
    names: Sequence[str] = ()
    _sessions: dict[bytes, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise BadInputError(
                f"others can reach {self.host}, and there is no token: the page is not shown to everybody",
                f"Write one into a file and name it with --token-file, or set {TOKEN_VARIABLE}. {_HOW}",
            )
        own = {self.host, "localhost", socket.gethostname(), *self.names}
        self._names = {one.lower().rstrip(".") for one in own if one}

    def refusal(self, method: str, path: str, headers: Mapping[str, str], cookie: str | None) -> Refusal | None:
        """Return why a request is refused, or None.

        Args:
            method: of HTTP.
            path: of the request, without its query.
            headers: by lower-case names.
            cookie: the value of `COOKIE`.
        """
        if method not in ("GET", "HEAD") and (method, path) != ("POST", "/login"):
            return Refusal(405, "this server only shows")
        host = headers.get("host", "")
        if not self._is_own(host):
            return Refusal(421, "this server has another name (--allow-host gives it one)")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return Refusal(403, "a page of another origin asks")
        fetched_by = headers.get("sec-fetch-site", "none")
        asks_for_data = path in DATA_PATHS or method == "POST"
        if fetched_by not in ("none", "same-origin") and asks_for_data:
            return Refusal(403, "a page of another origin asks")
        if "upgrade" in headers:
            return Refusal(403, "there are no WebSockets here")
        if self.token is None or path in OPEN_PATHS or self._may_look(headers, cookie):
            return None
        return Refusal(401, "log in first")

    def log_in(self, word: str) -> str | None:
        """Return the value of a cookie for a session, or None if the word is not the token."""
        if not self._is_token(word):
            return None
        now = time.monotonic()
        for one in [key for key, end in self._sessions.items() if end < now]:
            del self._sessions[one]
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        value = secrets.token_urlsafe(32)
        self._sessions[_digest(value)] = now + SESSION_S
        return value

    def _is_own(self, host: str) -> bool:
        """Return whether a `Host` is a name of this server. An address is: no name has been made to point to it."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.lower().rstrip(".").removeprefix("[").removesuffix("]")
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_look(self, headers: Mapping[str, str], cookie: str | None) -> bool:
        kind, _, word = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(word.strip()):
            return True
        return cookie is not None and self._sessions.get(_digest(cookie), 0.0) > time.monotonic()

    def _is_token(self, word: str) -> bool:
        # Of digests, so that not even the token's length shows in the time.
        return self.token is not None and hmac.compare_digest(_digest(word), _digest(self.token))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
