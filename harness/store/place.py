"""Where a store is: a file, or a database of a PostgreSQL server, whose address is never shown with its password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from latlab.harness.errors import BadInputError

__all__ = ["ServerPlace", "StorePath", "store_path", "without_passwords"]

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_FLATTENED = re.compile(r"postgres(ql)?(\+\w+)?:/[^/]")
"""What `Path` makes of an address."""
_SCHEMES = ("postgresql+psycopg", "postgresql", "postgres")
_IN_TEXT = re.compile(r"(\bpostgres(?:ql)?(?:\+\w+)?://[^\s:@/]*):\S*@", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(r"(?<=[?&])((?:ssl)?password)=[^&\s]*")
_SECRETS = ("password", "sslpassword")
"""Parameters of an address that are secret."""
EXAMPLE = "postgresql+psycopg://user@host/database"


@dataclass(frozen=True)
class ServerPlace:
    """A store in a database of a PostgreSQL server. As text, it is the address without its password."""

    address: str = field(repr=False)
    """The address for SQLAlchemy, with the password if it was given."""
    shown: str
    """The address without the password: for people, and for everything that is stored."""

    def __str__(self) -> str:
        return self.shown

    @property
    def has_password(self) -> bool:
        """Return whether the address has a password in it."""
        return self.address != self.shown


StorePath = Path | ServerPlace
"""Where a store is."""


def store_path(named: str | Path | ServerPlace) -> StorePath:
    """Return the place that a text means: an address if it has the form of one, else a file.

    Raises:
        BadInputError: it is the address of something else than a PostgreSQL server, or one that `Path` has flattened.
    """
    if isinstance(named, ServerPlace):
        return named
    if isinstance(named, Path):
        if _FLATTENED.match(str(named)):
            raise BadInputError(
                "the address of a store has lost its slashes, because it was given as a path",
                f"Give it as text: {EXAMPLE}.",
            )
        return named
    found = _ADDRESS.fullmatch(named)
    if found is None:
        return Path(named)
    scheme, rest = found["scheme"].lower(), found["rest"]
    if scheme == "sqlite":
        raise BadInputError("a store in SQLite is named by its file, without an address", "For example latlab.db.")
    if scheme not in _SCHEMES:
        raise BadInputError(
            f"a store is a file, or a database of a PostgreSQL server; {scheme}:// is neither",
            f"For example {EXAMPLE}.",
        )
    if any(ord(one) < 32 for one in rest):
        raise BadInputError("the address of the store has control characters in it", f"For example {EXAMPLE}.")
    return ServerPlace(f"{_SCHEMES[0]}://{rest}", f"{_SCHEMES[0]}://{_without_secrets(rest)}")


def without_passwords(text: str) -> str:
    """Return a text in which the addresses of databases have no passwords: the words of a command, say."""
    return _SECRET_IN_TEXT.sub(r"\1=***", _IN_TEXT.sub(r"\1@", text))


def _without_secrets(rest: str) -> str:
    """Return an address behind its scheme without what is secret, also if a password is not written as it should be."""
    before, mark, query = rest.partition("?")
    if "@" in query:  # a question mark of the password
        at = rest.rindex("@")
        before, mark, query = rest[:at] + "@" + rest[at + 1 :].partition("?")[0], *rest[at + 1 :].partition("?")[1:]
    user, at_sign, host = before.rpartition("@")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in _SECRETS]
    if len(kept) < len(parse_qsl(query, keep_blank_values=True)):
        query = urlencode(kept)
        mark = mark if kept else ""
    return f"{user.partition(':')[0]}{at_sign}{host}{mark}{query}"
