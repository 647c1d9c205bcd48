"""The lock of a store, or of another thing that one process at a time may write."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from latlab.harness.errors import LatlabError
from latlab.harness.store.errors import StoreError

__all__ = ["is_locked", "locked", "locked_if_free"]

PATIENCE_S = 1.0
"""Seconds to wait for the lock: another process holds it for a moment while it opens an older store for writing."""
STEP_S = 0.05


@contextlib.contextmanager
def locked(path: Path, what: str = "store") -> Iterator[None]:
    """Hold the lock of the store at `path`. The system frees it when the process ends, however it ends.

    Args:
        path: the store's real path, so that all names of a store share one lock.
        what: it is, in words, if it is no store.

    Raises:
        LatlabError: if another process holds it.
        StoreError: if it cannot be had.
    """
    handle = _open(path)
    try:
        until = time.monotonic() + PATIENCE_S
        while not _take(handle):
            if time.monotonic() > until:
                holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
                raise LatlabError(
                    f"the {what} {path} is being written by another latlab (process {holder})",
                    f"Wait for it to end, or use another {what}.",
                )
            time.sleep(STEP_S)
        with contextlib.suppress(OSError):  # the lock file may be another user's
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of the store at `path` if nobody else does; yield whether it is held."""
    handle = _open(path)
    try:
        yield _take(handle)
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Return whether somebody holds the lock of the store at `path`; nothing is written to find out."""
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _take(handle)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """Open the lock file, which must be a file of its own: what a link leads to would be overwritten."""
    lock = path.with_name(path.name + ".lock")
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe there would block
    try:
        handle = _opened(lock, flags)
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            os.close(handle)
            raise StoreError(f"cannot lock the store {path}: {lock} is no file of its own", "Remove it.")
    except OSError as error:
        reason = "it is a link" if lock.is_symlink() else error.strerror
        hint = "Remove it." if lock.is_symlink() else None
        raise StoreError(f"cannot lock the store {path} with {lock}: {reason}", hint) from error
    return handle


def _opened(lock: Path, flags: int) -> int:
    try:
        return os.open(lock, os.O_RDWR | flags)
    except FileNotFoundError:
        return os.open(lock, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # another user's, which can still be locked
        return os.open(lock, os.O_RDONLY | flags)


def _take(handle: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
