"""Errors of PostgreSQL in words, with the way out. They name the store by its address without the password."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from latlab.harness.store.errors import DamagedError, StoreError
from latlab.harness.store.place import EXAMPLE, ServerPlace

__all__ = ["ClashError", "ServerGoneError", "driver_errors", "explained_server", "url_of"]

_CLASHES = ("23505", "40001", "40P01")
"""Another controller has written the same row, or a transaction that this one cannot follow: try again."""
_GONE = ("57P01", "57P02", "57P03", "25P03")
"""The server stops, or starts."""
_PASSWORD = "Put it into the file that PGPASSFILE names (~/.pgpass), or into PGPASSWORD; not into the address."


class ServerGoneError(StoreError):
    """Raised if the server does not answer any more, or not yet."""


class ClashError(StoreError):
    """Raised if another controller has written the same at the same time: the transaction is to be tried again."""


def driver_errors() -> type[Exception]:
    """Return the base class of psycopg's errors.

    Raises:
        StoreError: if psycopg is not installed.
    """
    try:
        import psycopg
    except ImportError as error:  # it is missing, or finds no libpq
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({str(error).splitlines()[0]})"
        raise StoreError(
            f"a store in PostgreSQL needs psycopg, which is not installed{reason}",
            "Install it with `pip install 'latlab[postgresql]'`.",
        ) from error
    found: type[Exception] = psycopg.Error
    return found


def url_of(place: ServerPlace) -> Any:
    """Return the address for SQLAlchemy. Raises `StoreError` if it is none."""
    try:
        url = make_url(place.address)
        named = bool(url.database)
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"{place} is no address of a database", f"It has the form {EXAMPLE}.") from error
    if not named:
        raise StoreError(f"the address {place} names no database", f"It has the form {EXAMPLE}.")
    return url


@contextlib.contextmanager
def explained_server(place: ServerPlace, secrets: tuple[str, ...]) -> Iterator[None]:
    """Turn an error of the server, or of the way to it, into a `StoreError` that says what to do.

    Args:
        place: the store.
        secrets: what must not be in a message.
    """
    try:
        yield
    except (DamagedError, json.JSONDecodeError) as error:
        raise StoreError(f"the store {place} is damaged, or a newer latlab has written it: {error}") from error
    except PoolTimeoutError as error:
        raise ServerGoneError(f"the server of the store {place} is too slow: no connection was free") from error
    except DBAPIError as error:
        raise _in_words(place, error.orig, error.connection_invalidated, secrets) from _without_traces(error)
    except driver_errors() as error:  # from cursors of the driver's own
        raise _in_words(place, error, False, secrets) from _without_traces(error)


def _without_traces(error: Exception) -> Exception | None:
    """Return the cause to show in a traceback: nothing, because an error of a connection may quote the address."""
    return None if getattr(getattr(error, "orig", error), "sqlstate", None) is None else error


def _in_words(place: ServerPlace, error: Any, invalidated: bool, secrets: tuple[str, ...]) -> StoreError:
    code = getattr(error, "sqlstate", None) or ""
    said = re.split(r"\s(?:This probably means|Is the server running)\b", " ".join(str(error).split()))[0].removesuffix(
        "."
    )
    for secret in secrets:
        said = said.replace(secret, "***")
    if code in _CLASHES:
        return ClashError(f"another controller writes the same into the store {place}: {said}", "Try again.")
    if not code:
        return _not_reached(place, error, said)
    if invalidated or code in _GONE or code.startswith("08"):
        return ServerGoneError(
            f"the server of the store {place} has ended the connection", "Try again when it runs; nothing is lost."
        )
    if code == "42501":
        return StoreError(
            f"the user of {place} may not do this: {said}",
            "Let an owner grant it: CREATE ON DATABASE for a new store, else ALL ON ALL TABLES IN SCHEMA latlab.",
        )
    if code in ("42P01", "42703"):
        return StoreError(f"the store {place} lacks a table or a column of latlab's: {said}", "Use another database.")
    if code == "25006":
        return StoreError(f"the store {place} is read-only: {said}", "Name the primary server, not its standby.")
    if code.startswith("53"):
        return StoreError(
            f"the server of the store {place} lacks room: {said}",
            "Make some, then run the same command again: it continues where it stopped.",
        )
    return StoreError(f"cannot use the store {place}: {said}")


def _not_reached(place: ServerPlace, error: Any, said: str) -> StoreError:
    """Return the error of a connection that was not made, or was cut: the driver gives such ones no code."""
    if "password authentication failed" in said:
        return StoreError(f"the password for {place} is wrong", _PASSWORD)
    if "no password supplied" in said:
        return StoreError(f"the store {place} asks for a password, and there is none", _PASSWORD)
    if "authentication failed" in said or "pg_hba.conf" in said:
        return StoreError(
            f"the server does not let this user in: {place}: {said}",
            "Name another user in the address, or let the server's owner allow this one in pg_hba.conf.",
        )
    if "does not exist" in said and "database" in said:
        return StoreError(
            f"there is no such database: {place}",
            "Make it with `createdb` on the server, or name another one in the address.",
        )
    if "does not exist" in said and "role" in said:
        return StoreError(
            f"there is no such user on the server: {place}",
            "Make it with `createuser` on the server, or name another one in the address.",
        )
    if "invalid" in said and "option" in said:
        return StoreError(f"the address {place} has a parameter that PostgreSQL does not know: {said}")
    return ServerGoneError(
        f"the server of the store {place} cannot be reached: {said}",
        "See that it runs and listens (`pg_isready -h HOST -p PORT`), and that host and port are right.",
    )
