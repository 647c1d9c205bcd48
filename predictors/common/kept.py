"""A folder for arrays that take seconds to make, such as priors, so that the next process need not make them again."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["code_digest", "keep_in", "kept", "kept_folder"]

Arrays = Mapping[str, NDArray[Any]]
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
_MOST_FILES = 200
"""Most files of code beside a plugin's that are looked at."""
_folder: Callable[[], Path] | None = None


def keep_in(folder: Callable[[], Path] | None) -> None:
    """Keep arrays in the folder that a function names when it is needed; None keeps nothing on disk, as at first."""
    global _folder  # one folder for the process, as $LATLAB_CACHE is one
    _folder = folder


def kept_folder() -> Path | None:
    """Return the folder that `keep_in` has named, or None if nothing is kept on disk."""
    return None if _folder is None else _folder()


def code_digest(makers: tuple[object, ...]) -> str:
    """Return 16 hexadecimal digits that change with NumPy's version and with any Python file beside the makers.

    Args:
        makers: functions, classes and values whose code counts.
    """
    code = hashlib.sha256(np.__version__.encode())
    for folder in sorted({Path(_file_of(one)).parent for one in makers}):
        code.update(_digest(folder))
    return code.hexdigest()[:16]


def kept(name: str, makers: tuple[object, ...], make: Callable[[], Arrays]) -> Arrays:
    """Return arrays from the folder, or else make them and keep them there.

    They are made again after any change of the code that they come from. A folder that cannot be read or written is no
    error: they are made in each process then.

    Args:
        name: what they are, with all that they depend on but code.
        makers: functions, classes and values whose code they come from: all Python files of their folders count.
        make: makes them.
    """
    if _folder is None:
        return make()
    title = hashlib.sha256(name.encode()).hexdigest()[:16]
    path = _folder() / "arrays" / f"{title}-{code_digest(makers)}.npz"
    with (
        suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
        np.load(path, allow_pickle=False) as file,
    ):
        return {one: file[one] for one in file.files}
    arrays = make()
    with suppress(OSError):
        _write(path, arrays)
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    """Write a file whole, in the place of those that older code has made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = dict(arrays)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **content)
        for older in path.parent.glob(f"{path.name.partition('-')[0]}-*.npz"):
            older.unlink(missing_ok=True)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _file_of(maker: object) -> str:
    return inspect.getfile(maker if inspect.isroutine(maker) or inspect.isclass(maker) else type(maker))


@lru_cache(maxsize=64)
def _digest(folder: Path) -> bytes:
    found = hashlib.sha256(str(folder.name).encode())
    for path in sorted(folder.glob("*.py"))[:_MOST_FILES]:
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.digest()
