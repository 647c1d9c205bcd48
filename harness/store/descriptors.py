"""Reading a store's file beside SQLite, without taking SQLite's locks from it.

A process that closes any descriptor of a file loses all its locks on that file, also those that belong to another
descriptor (POSIX, fcntl). So a plain read of a store that is open in this process would let others write at the same
time as it. Descriptors therefore stay open.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["copy_bytes", "first_bytes"]

KEPT = 64
"""Most descriptors that stay open; the one that was not used for the longest time is closed first."""
_CHUNK = 1 << 20
_descriptors: dict[tuple[int, int], int] = {}
_lock = threading.Lock()


def first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a file. Raises `OSError` if it cannot be read."""
    with _lock:
        return os.pread(_descriptor(path), count, 0)


def copy_bytes(path: Path, to: Path) -> None:
    """Copy the content of a file. Raises `OSError` if it cannot be read, or not be written."""
    with _lock, to.open("wb") as file:
        handle, place = _descriptor(path), 0
        while data := os.pread(handle, _CHUNK, place):
            file.write(data)
            place += len(data)


def _descriptor(path: Path) -> int:
    status = os.stat(path)
    key = status.st_dev, status.st_ino
    handle = _descriptors.pop(key, None)
    if handle is None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(handle)
        key = status.st_dev, status.st_ino  # it may have been replaced in between
    _descriptors[key] = handle
    if len(_descriptors) > KEPT:
        os.close(_descriptors.pop(next(iter(_descriptors))))
    return handle
