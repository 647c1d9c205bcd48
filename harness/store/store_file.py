"""The file of a store: read by everybody, written by one.

Reading never writes (`reading.Reader`). Writing opens the file a second time, brings an older store up to date under
the store's lock, and then everything goes through that connection.

While latlab measures (`writing`), commits go to a write-ahead log, because they then need not wait for the disk, and
readers do not wait for them. The log is folded into the file after every label and at the end, so that the file alone
can be copied at any time, even after a `kill -9`. At rest a store is one file without a log.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from latlab.harness.errors import BadInputError
from latlab.harness.paths import BESIDE_DATABASES, whole_file
from latlab.harness.store.errors import StoreError, explained
from latlab.harness.store.lock import locked, locked_if_free
from latlab.harness.store.migrations import upgrade
from latlab.harness.store.reading import (
    BUSY_S,
    Reader,
    announces_log,
    check_owner,
    engine_of,
    make_tables,
    table_count,
)
from latlab.harness.store.schema import SCHEMA_VERSION

__all__ = ["StoreFile"]

T = TypeVar("T")
SWITCH_WAIT_MS = 500
"""Milliseconds to wait for readers when the journal changes; if there still are any, it stays as it was."""


class StoreFile:
    """A store's file, which the first write creates if there is none.

    Threads may share it: they take turns on its one connection, which for SQLite is quicker than several connections
    that wait for one another.

    Args:
        path: of the SQLite file; links are followed.
        must_exist: raise `StoreError` if there is no such file.

    Raises:
        StoreError: if the file cannot be used, or is no store.
    """

    is_shared = False
    """Whether several controllers may write at once."""

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        self.path = path
        self.real_path = Path(os.path.realpath(path))
        self._lock = threading.RLock()
        self._reader: Reader | None = None
        self._writer: Engine | None = None
        self._inode: tuple[int, int] | None = None
        self._saved: Path | None = None
        self._has_log = False
        self.controller: str | None = None
        """No controllers share a file, so that none has to be told from others."""
        self.times_opened = 0
        """How often a connection to the file was opened."""
        self._check(must_exist)
        if self.path.exists():
            with explained(self.path):
                self._reader = Reader.open(self.real_path)
            self.times_opened += 1

    def exists(self) -> bool:
        """Return whether the file is there."""
        return self.path.exists()

    def size_bytes(self) -> int:
        """Return the size of the file; 0 if there is none."""
        return self.real_path.stat().st_size if self.real_path.exists() else 0

    def retry(self, work: Callable[[], T]) -> T:
        """Return what `work` returns: with a file there is nothing that trying again would help."""
        return work()

    def close(self) -> None:
        """Close the connections to the file."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            if self._writer is not None:
                self._writer.dispose()
            self._reader = self._writer = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection to read with."""
        with self._lock, explained(self.path):
            if self._writer is not None:
                self._check_there()
                engine = self._writer
            else:
                if self._reader is None or not self._reader.is_current():
                    if self._reader is not None:
                        self._reader.close()
                    self._reader = Reader.open(self.real_path)
                    self.times_opened += 1
                engine = self._reader.engine
            reader = self._reader if self._writer is None else None
            try:
                with engine.connect() as connection:
                    yield connection
            except DBAPIError:  # such as "malformed", for a page of another state
                if reader is not None:
                    reader.check_unchanged()
                raise
            if reader is not None:
                reader.check_unchanged()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction in plain SQL: committed at the end, undone by an exception.

        Raises:
            StoreError: if the file cannot be written, or has been deleted or replaced since it was opened.
        """
        with self._lock, explained(self.path):
            with self._for_writing().begin() as connection:
                yield connection
            self._check_there()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Open a transaction in SQLAlchemy's objects, which take five times longer than plain SQL. Raises as it."""
        with self._lock, explained(self.path):
            with Session(self._for_writing(), expire_on_commit=False) as session, session.begin():
                yield session
            self._check_there()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, so that no other process measures into it.

        Raises:
            LatlabError: if another process holds it.
            StoreError: at the end, if the file has been deleted or replaced meanwhile.
        """
        with self._lock, explained(self.path):
            self._for_writing()
        with locked(self.real_path):
            with self._lock, explained(self.path), self._for_writing().connect() as connection:
                self._has_log = _set_journal(connection, "WAL")
            try:
                yield
                self._check_there()
            finally:
                with self._lock:
                    self._end_log()

    def fold(self) -> None:
        """Move what is in the log into the file, as far as readers allow."""
        if self._has_log and self._writer is not None:
            with self._lock, explained(self.path), self._writer.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all()

    def _end_log(self) -> None:
        self._has_log = False
        if self._writer is not None:
            with contextlib.suppress(DBAPIError), self._writer.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all()
                _set_journal(connection, "DELETE")

    def _check(self, must_exist: bool) -> None:
        if must_exist and not self.path.exists():
            raise StoreError(f"there is no store {self.path}", "Measure something first, or name another store.")
        if self.path.is_dir():
            raise StoreError(f"the store {self.path} is a folder", "Name a file, for example latlab.db.")
        for path in (
            self.real_path,
            *(self.real_path.with_name(self.real_path.name + end) for end in BESIDE_DATABASES),
        ):
            if path.exists() and not path.is_file():  # to open a named pipe would wait for ever
                raise StoreError(f"cannot use the store {self.path}: {path} is no ordinary file", "Name another store.")
        if not self.real_path.parent.is_dir():
            raise StoreError(f"the folder {self.path.parent} of the store {self.path.name} does not exist")
        if not self.path.exists():
            self._check_folder()

    def _check_folder(self) -> None:
        if not os.access(self.real_path.parent, os.W_OK):
            raise StoreError(
                f"the folder {self.path.parent} of the store {self.path.name} cannot be written",
                "Work on a copy: latlab store copy.",
            )

    def _check_there(self) -> None:
        """Raise `StoreError` if the file is not the one any more that was opened for writing."""
        with self._lock:
            if self._inode is None or _inode(self.real_path) == self._inode:
                return
            happened = "replaced" if self.real_path.exists() else "deleted"
            self._saved = self._saved or self._save_elsewhere()
        message = f"the store {self.path} has been {happened} while latlab was writing it"
        if self._saved is None:
            raise StoreError(f"{message}; what it measured is lost", "Run the same command again.")
        hint = f"Merge the two: latlab store merge {self._saved} {self.path} --into all.db."
        if happened == "deleted":
            hint = f"Move that file to {self.path}, then run the same command again: it continues."
        raise StoreError(f"{message}; all that was measured is saved in {self._saved}", hint)

    def _save_elsewhere(self) -> Path | None:
        """Write what the open connection holds to a new file: its own file has no name any more."""
        assert self._writer is not None
        for folder in (self.real_path.parent, Path(), Path(tempfile.gettempdir())):
            names = (folder / f"{self.path.stem}-saved{number}.db" for number in ("", *range(2, 1000)))
            with contextlib.suppress(OSError, BadInputError, DBAPIError, sqlite3.Error):
                path = next(one for one in names if not one.exists())
                with whole_file(path) as part, contextlib.closing(sqlite3.connect(part)) as saved:
                    with self._writer.connect() as connection:
                        driver = connection.connection.driver_connection
                        assert isinstance(driver, sqlite3.Connection)
                        driver.backup(saved)
                    saved.execute("PRAGMA journal_mode = DELETE")
                return path
        return None

    def _for_writing(self) -> Engine:
        """Return the connection for writing; the first call opens it, and creates or updates the store."""
        if self._writer is not None:
            if not self._has_log:  # with a log, even a file without a name takes what was just measured
                self._check_there()
            return self._writer
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._check_folder()
        if self.path.exists() and not os.access(self.real_path, os.W_OK):
            raise StoreError(f"the store {self.path} is read-only", "Work on a copy: latlab store copy.")
        if self.path.exists():
            announces_log(self.real_path)  # which raises for other files
        uri = f"file:{quote(str(self.real_path))}?mode=rwc"
        engine = engine_of(lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_S, check_same_thread=False))
        try:
            with engine.connect() as connection:
                self._prepare(connection)
        except BaseException:
            engine.dispose()
            raise
        self._writer, self._inode = engine, _inode(self.real_path)
        self.times_opened += 1
        return engine

    def _prepare(self, connection: Connection) -> None:
        if table_count(connection) == 0:
            # Look again under the lock, and make all tables or none: another process may be making the same store,
            # and this one may be killed.
            connection.rollback()
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if table_count(connection) == 0:
                make_tables(connection)
            connection.commit()
        version = check_owner(connection, self.path)
        if version == SCHEMA_VERSION and not announces_log(self.real_path):
            return
        with locked_if_free(self.real_path) as is_ours:
            if not is_ours and version < SCHEMA_VERSION:
                raise StoreError(
                    f"the store {self.path} is being written by an older latlab, and has to be updated for this one",
                    "Wait for that one to end.",
                )
            if is_ours:
                connection.rollback()
                if version < SCHEMA_VERSION:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                    upgrade(connection, version)
                    connection.commit()
                _set_journal(connection, "DELETE")


def _set_journal(connection: Connection, mode: str) -> bool:
    """Set how transactions are made safe, and return whether it is a write-ahead log then.

    With a log, a power cut may undo the last commits, but never damages the file; without, each waits for the disk.
    """
    connection.rollback()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {SWITCH_WAIT_MS}")
    try:
        now = connection.exec_driver_sql(f"PRAGMA journal_mode = {mode}").scalar_one()
    except DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        now = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * BUSY_S}")
    has_log = bool(now == "wal")
    connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if has_log else 'FULL'}")
    return has_log


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
