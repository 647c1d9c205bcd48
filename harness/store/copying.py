"""Copies of stores, also to and from servers: consistent also while somebody writes, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from latlab.harness.errors import BadInputError
from latlab.harness.paths import BESIDE_DATABASES, whole_file
from latlab.harness.store.damage import DamagedRow, warn_of
from latlab.harness.store.errors import StoreError, explained, explained_write
from latlab.harness.store.lock import is_locked, locked
from latlab.harness.store.place import ServerPlace, StorePath, store_path
from latlab.harness.store.row_check import damaged_rows, remove_damaged
from latlab.harness.store.server import StoreServer
from latlab.harness.store.store import Store
from latlab.harness.store.store_file import StoreFile
from latlab.harness.store.transfer import transfer

__all__ = ["compact_store", "copy_sound", "copy_store", "new_store", "removed_if_new"]


def copy_store(source: str | StorePath, copy: str | StorePath, *, force: bool = False) -> int:
    """Copy a store to one file, without a log beside it, or to a database, and return its size in bytes.

    Damaged rows are copied as they are from file to file, and left out on the way to a database; a `StoreWarning`
    names them.

    Args:
        source: a store; somebody may be writing it.
        copy: the file to make, or the address of a database without a store.
        force: replace an existing file, or the store in the database.

    Raises:
        BadInputError: there is no such store, the copy exists already, or it cannot be written.
    """
    copy = store_path(copy)
    if isinstance(copy, ServerPlace):
        with Store(source, must_exist=True) as store, Store(copy) as target:
            assert isinstance(target.access, StoreServer)
            return _copy_to_server(store, target.access, force)
    with Store(source, must_exist=True) as store, new_store(copy, force=force) as part:
        copy_to(store, part, copy)
        with Store(part) as copied, copied.reading() as connection:
            bad = list(damaged_rows(connection))
        warn_of(store.path, bad, "copied as they are" if len(bad) > 1 else "copied as it is")
        return part.stat().st_size


def copy_sound(store: Store, path: Path, to: StorePath) -> list[DamagedRow]:
    """Copy a store to a new file, bring that up to date, and leave its damaged rows out; return and warn of them."""
    copy_to(store, path, to)
    try:
        with Store(path) as copied, copied.transaction() as connection:
            bad = remove_damaged(connection)
    except StoreError as error:  # it names the copy
        message, hint = (one and one.replace(str(path), str(store.path)) for one in (error.message, error.hint))
        raise StoreError(str(message), hint) from error
    warn_of(store.path, bad)
    return bad


def _copy_to_server(store: Store, target: StoreServer, force: bool) -> int:
    """Copy a store to a database, and return its size there."""
    if target.exists() and not force:
        raise BadInputError(
            f"there is a store in {target.path} already", "Name another database, or add --force to replace it."
        )
    with contextlib.ExitStack() as stack:
        if isinstance(store.access, StoreFile):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".latlab-", dir=_roomy(store.access)))
            sound = Path(folder, "store.db")
            copy_sound(store, sound, target.path)
            source = stack.enter_context(stack.enter_context(Store(sound)).reading())
        elif store.path == target.path:
            raise BadInputError(f"{target.path} is the store itself", "Name another database.")
        else:
            source = stack.enter_context(store.access.one_moment())
        transfer(source, stack.enter_context(target.replaced()))
    target.vacuum(shrink=False)
    return target.size_bytes()


def _roomy(file: StoreFile) -> Path | None:
    """Return a folder that has room for a copy of a file: its own one, if that can be written."""
    folder = file.real_path.parent
    return folder if os.access(folder, os.W_OK) else None


def copy_to(store: Store, path: Path, to: StorePath) -> None:
    """Write what a store holds to a new file.

    Args:
        store: the store.
        path: the file.
        to: its name in errors.
    """
    if isinstance(store.access, StoreServer):
        with store.access.one_moment() as source, Store(path) as copied, copied.transaction() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # a copied label may refer to a later row
            transfer(source, connection)
        return
    with store.reading() as connection, explained_write(to), closing(sqlite3.connect(path)) as target:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.backup(target)  # in one step, so that it is one moment's content
        target.execute("PRAGMA journal_mode = DELETE")


@contextlib.contextmanager
def new_store(path: str | Path, *, force: bool) -> Iterator[Path]:
    """Yield a path to write a store to; at the end of the block it takes the place of `path`, whole or not at all.

    Raises:
        BadInputError: there is something at `path` and `force` is not given, or it cannot be written.
        LatlabError: another latlab is writing the store at `path`.
    """
    real_path = Path(os.path.realpath(path))
    if real_path.exists() and not force:
        raise BadInputError(f"{path} exists already", "Name another file, or add --force to replace it.")
    if not real_path.parent.is_dir():
        raise BadInputError(f"the folder {real_path.parent} does not exist", "Make it, or name another place.")
    with contextlib.ExitStack() as stack:
        if real_path.exists():
            stack.enter_context(locked(real_path))
        with whole_file(path) as part, explained(Path(path)), explained_write(Path(path)):
            yield part
            # The log or journal of the old file would be taken for the new one's.
            for suffix in BESIDE_DATABASES:
                real_path.with_name(real_path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def removed_if_new(path: str | StorePath) -> Iterator[None]:
    """Remove a file that the block has made as a store, if the block fails: a store without content would be left."""
    path = store_path(path)
    if isinstance(path, ServerPlace):  # empty tables do no harm there
        yield
        return
    real_path = Path(os.path.realpath(path))
    was_there = real_path.exists()
    try:
        yield
    except BaseException:
        if not was_there and not is_locked(real_path):
            for suffix in ("", *BESIDE_DATABASES, ".lock"):
                with contextlib.suppress(OSError):
                    real_path.with_name(real_path.name + suffix).unlink()
        raise


def compact_store(path: str | StorePath) -> tuple[int, int]:
    """Give the space of removed rows back to the disk, and return the bytes before and after.

    Raises:
        StoreError: the store cannot be written, or the disk lacks the space for the new file.
        LatlabError: another latlab is writing it.
    """
    with Store(path, must_exist=True) as store:
        if isinstance(store.access, StoreServer):
            before = store.size_bytes()
            store.access.vacuum(shrink=True)
            return before, store.size_bytes()
        before = _bytes(store.access.real_path)
        with store.writing(), store.reading() as connection:
            connection.exec_driver_sql("VACUUM")
        return before, _bytes(store.access.real_path)


def _bytes(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(one.stat().st_size for one in files if one.exists())
