"""The errors and warnings of a store."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from latlab.harness.errors import BadInputError
from latlab.harness.store.place import StorePath

__all__ = ["DamagedError", "StoreError", "StoreWarning", "explained", "explained_write"]


_CANNOT_READ = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)
_RECOVER = "Recover what is there with `sqlite3 {} .recover`, or use another store."


class StoreError(BadInputError):
    """Raised if the store cannot be read or written; the message names the file."""


class StoreWarning(UserWarning):
    """Given if a part of a store cannot be read, and the rest is."""


class DamagedError(Exception):
    """A value in the file is not what latlab writes there."""


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of SQLite into a `StoreError` that names the file and says what to do."""
    try:
        yield
    except (DamagedError, json.JSONDecodeError) as error:
        reason = str(error) if isinstance(error, DamagedError) else f"a value is not JSON ({error})"
        raise StoreError(
            f"the store {path} is damaged, or a newer latlab has written it: {reason}",
            f"`latlab store check {path}` lists what is damaged. Update latlab, or restore a copy of the file.",
        ) from error
    except UnicodeDecodeError as error:  # of the names of tables, which SQLite itself reads
        raise StoreError(
            f"the store {path} is damaged: it holds text that is not UTF-8", _RECOVER.format(path)
        ) from error
    except (DBAPIError, sqlite3.Error) as error:
        raise _in_words(path, error.orig if isinstance(error, DBAPIError) else error) from error


@contextlib.contextmanager
def explained_write(path: StorePath) -> Iterator[None]:
    """Turn a failure to write a new store into a `StoreError` that names it; other errors are raised as they are."""
    try:
        yield
    except sqlite3.Error as error:
        if not _is_write_error(error):
            raise
        raise StoreError(
            f"cannot write {path}: the disk is full or broken ({error})",
            "Free some space there, or name another place.",
        ) from error


def _is_write_error(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) and code not in _CANNOT_READ


def _in_words(path: Path, error: BaseException | None) -> StoreError:
    said = str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what SQLite's extended codes add
    if _is_write_error(error):
        return StoreError(
            f"cannot write the store {path}: the disk is full or broken ({said})",
            "Free some space, then run the same command again: it continues where it stopped.",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such" in said:  # a table or column
        return StoreError(
            f"the store {path} is damaged: {said}",
            _RECOVER.format(path),
        )
    if code == sqlite3.SQLITE_BUSY:
        return StoreError(f"the store {path} is being used by another program", "Wait for it to end.")
    return StoreError(f"cannot use the store {path}: {said}")
