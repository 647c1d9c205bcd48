"""Copies of stores: consistent also while somebody writes, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from latlab.harness.errors import BadInputError
from latlab.harness.paths import BESIDE_DATABASES, whole_file
from latlab.harness.store.damage import warn_of
from latlab.harness.store.errors import explained, explained_write
from latlab.harness.store.lock import is_locked, locked
from latlab.harness.store.row_check import damaged_rows
from latlab.harness.store.store import Store

__all__ = ["compact_store", "copy_store", "copy_to", "new_store", "removed_if_new"]


def copy_store(source: str | Path, copy: str | Path, *, force: bool = False) -> int:
    """Copy a store to one file, without a log beside it, and return its size in bytes.

    Damaged rows are copied as they are, and named in a `StoreWarning`.

    Args:
        source: a store; somebody may be writing it.
        copy: the file to make.
        force: replace an existing file.

    Raises:
        BadInputError: there is no such store, the copy exists already, or it cannot be written.
    """
    with Store(source, must_exist=True) as store, new_store(copy, force=force) as part:
        copy_to(store, part, copy)
        with Store(part) as copied, copied.reading() as connection:
            bad = list(damaged_rows(connection))
        warn_of(store.path, bad, "copied as they are" if len(bad) > 1 else "copied as it is")
        return part.stat().st_size


def copy_to(store: Store, path: Path, to: str | Path) -> None:
    """Write what a store holds to a new file.

    Args:
        store: the store.
        path: the file.
        to: its name in errors.
    """
    with store.reading() as connection, explained_write(Path(to)), closing(sqlite3.connect(path)) as target:
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
def removed_if_new(path: str | Path) -> Iterator[None]:
    """Remove a store that the block has made, if the block fails: a store without content would be left."""
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


def compact_store(path: str | Path) -> tuple[int, int]:
    """Give the space of removed rows back to the disk, and return the bytes before and after.

    Raises:
        StoreError: the store cannot be written, or the disk lacks the space for the new file.
        LatlabError: another latlab is writing it.
    """
    with Store(path, must_exist=True) as store:
        before = _bytes(store.real_path)
        with store.writing(), store.reading() as connection:
            connection.exec_driver_sql("VACUUM")
        return before, _bytes(store.real_path)


def _bytes(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(one.stat().st_size for one in files if one.exists())
