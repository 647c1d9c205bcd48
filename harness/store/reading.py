"""A connection to a store that never writes: not to the file, not beside it.

A store at rest has a rollback journal, for which a reader needs nothing but the file. While latlab measures, it has a
write-ahead log (SQLite's WAL) beside it, which readers share with the writer. Three more states come from older
versions, from killed writers and from copies:

- a log is announced in the file, but there is none: the file alone is read, as one that nobody changes. SQLite then
  takes no locks. So if a writer folds its log into the file meanwhile, that is an error, and never a wrong answer;
- there is a log without its index, or a transaction that a killed writer left half done: to read it, SQLite would have
  to write. A private copy is made and read.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from latlab.harness.store.descriptors import copy_bytes, first_bytes
from latlab.harness.store.errors import StoreError, StoreWarning
from latlab.harness.store.lock import is_locked
from latlab.harness.store.migrations import create
from latlab.harness.store.older_stores import has_indices, read_as_new
from latlab.harness.store.schema import SCHEMA_VERSION

__all__ = [
    "APPLICATION_ID",
    "BUSY_S",
    "Reader",
    "announces_log",
    "check_owner",
    "empty_engine",
    "engine_of",
    "make_tables",
    "table_count",
]

APPLICATION_ID = 0x6C61746C  # "latl": distinguishes our files from other SQLite files
BUSY_S = 30
"""Seconds to wait for another process that writes a transaction."""
LOG_S = 2.0
"""Seconds to wait for the log of a writer that is making it."""
_MAGIC = b"SQLite format 3\0"
_WAL = b"\x02\x02"  # at byte 18 of the header: the versions that writers and readers must know


@dataclass
class Reader:
    """An open connection for reading, and the state of the file that it was opened in."""

    engine: Engine
    path: Path
    state: tuple[object, ...]
    copy: tempfile.TemporaryDirectory[str] | None = None
    content: tuple[int, int] | None = None
    """What tells whether the file has changed, if it is read without SQLite's locks."""

    @staticmethod
    def open(path: Path) -> Reader:
        """Open the store at `path`; one that does not exist reads as an empty one.

        Raises:
            StoreError: if it is no store, or a newer latlab's.
        """
        _wait_for_log(path)
        state = _state(path)
        if not path.exists() or not path.stat().st_size:
            return Reader(empty_engine(), path, state)
        copy = content = None
        log, index = _beside(path, "-wal"), _beside(path, "-shm")
        options = "mode=ro"
        if announces_log(path):
            if not log.exists() or (not log.stat().st_size and not index.exists()):
                options, content = "mode=ro&immutable=1", _content(path)
            elif not index.exists():
                copy = _private_copy(path)
        engine = _connect(_copied(copy, path), "mode=rw" if copy else options)
        try:
            with engine.connect() as connection:
                tables = table_count(connection)
        except DBAPIError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0)
            if code not in (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_CANTOPEN) or copy is not None:
                raise
            engine.dispose()
            copy = _private_copy(path)
            engine = _connect(_copied(copy, path), "mode=rw")
            with engine.connect() as connection:
                tables = table_count(connection)
        if not tables:
            engine.dispose()
            return Reader(empty_engine(), path, state, copy)
        with engine.connect() as connection:
            version = check_owner(connection, path)
            if version < SCHEMA_VERSION:
                read_as_new(connection)
            if announces_log(path) and not log.exists():
                _warn_of_log(connection, path)
        return Reader(engine, path, state, copy, content)

    def is_current(self) -> bool:
        """Return whether the connection still shows what is in the file."""
        return self.state == _state(self.path)

    def check_unchanged(self) -> None:
        """Check that nobody has written into a file that was read without locks: what was read may be of two states.

        Raises:
            StoreError: somebody has.
        """
        if self.content not in (None, _content(self.path)):
            raise StoreError(f"another latlab has changed the store {self.path} while it was read", "Try again.")

    def close(self) -> None:
        """Close the connection."""
        self.engine.dispose()
        if self.copy is not None:
            self.copy.cleanup()


def announces_log(path: Path) -> bool:
    """Return whether the file says that a write-ahead log belongs to it.

    Raises:
        StoreError: if it cannot be read, or is no SQLite file.
    """
    try:
        head = first_bytes(path, 20)
    except OSError as error:
        raise StoreError(f"cannot read the store {path}: {error.strerror}") from error
    if head and head[:16] != _MAGIC:
        raise StoreError(
            f"{path} is not a latlab store (not an SQLite file)",
            "Name another file; this one was left as it is.",
        )
    return head[18:20] == _WAL


def table_count(connection: Connection) -> int:
    """Return the number of tables and indices in the file."""
    return int(connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one())


def check_owner(connection: Connection, path: Path) -> int:
    """Return the version of a store's schema.

    Raises:
        StoreError: if another program or a newer latlab has written the file.
    """
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if connection.exec_driver_sql("PRAGMA application_id").scalar_one() != APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite file of another program", "Name another file.")
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path} was written by a newer latlab (schema {version})", "Update latlab.")
    return version


def make_tables(connection: Connection) -> None:
    """Make all tables in an empty file, and write into it that it is a store of this version."""
    create(connection)
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _wait_for_log(path: Path) -> None:
    """Wait for a moment if a writer has just announced its log, or is about to remove it."""
    until = time.monotonic() + LOG_S
    while path.exists() and announces_log(path) and not _beside(path, "-wal").exists() and is_locked(path):
        if time.monotonic() > until:
            return
        time.sleep(0.02)


def _warn_of_log(connection: Connection, path: Path) -> None:
    """Say that a log is missing, if one should be there: older versions announced a log that they had folded in."""
    something = connection.exec_driver_sql("SELECT 1 FROM measurements LIMIT 1").scalar()
    if something is None or has_indices(connection):
        warnings.warn(
            f"the log of the store {path} is missing ({path.name}-wal): its newest measurements may be in it. "
            f"Copy it from where the store was, or use `latlab store copy` there.",
            StoreWarning,
            stacklevel=2,
        )


def _state(path: Path) -> tuple[object, ...]:
    """Return what tells whether a connection has to be opened again: another file, another journal, other content.

    A file whose journal SQLite watches itself is the same one as long as its inode is.
    """
    try:
        facts = path.stat()
    except OSError:
        return (None,)
    if not facts.st_size:
        return (facts.st_ino, 0)
    watched = not announces_log(path) or (_beside(path, "-wal").exists() and _beside(path, "-shm").exists())
    content = () if watched else (facts.st_mtime_ns, facts.st_size)
    return (facts.st_dev, facts.st_ino, watched, *content)


def _content(path: Path) -> tuple[int, int] | None:
    """Return what changes with the file's content; None if there is no file."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _copied(copy: tempfile.TemporaryDirectory[str] | None, path: Path) -> Path:
    return Path(copy.name, path.name) if copy else path


def _private_copy(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Copy a store, with its log or its journal, to a folder of its own."""
    folder = tempfile.TemporaryDirectory(prefix="latlab-")
    before = _content(path)
    try:
        for suffix in ("", "-wal", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                copy_bytes(_beside(path, suffix), Path(folder.name, _beside(path, suffix).name))
    except OSError as error:
        folder.cleanup()
        raise StoreError(f"cannot read the store {path}: {error.strerror}") from error
    if _content(path) != before:  # a writer has begun: the copy may be of two states
        folder.cleanup()
        raise StoreError(f"another latlab has changed the store {path} while it was read", "Try again.")
    os.chmod(Path(folder.name, path.name), 0o600)
    return folder


def _connect(path: Path, options: str) -> Engine:
    uri = f"file:{quote(str(path))}?{options}"
    return engine_of(lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_S, check_same_thread=False))


def engine_of(connect: Callable[[], sqlite3.Connection]) -> Engine:
    """Return an engine with one connection, which threads take turns on."""
    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    event.listen(engine, "connect", _on_connect)
    return engine


def empty_engine() -> Engine:
    engine = engine_of(lambda: sqlite3.connect(":memory:", check_same_thread=False))
    with engine.begin() as connection:  # so that a copy of it is a store, too
        make_tables(connection)
    return engine


def _on_connect(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
