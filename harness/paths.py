"""The cache folder, and folders that the user names."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latlab.harness.errors import BadInputError

__all__ = ["cache_folder", "replaced_file", "whole_file", "writable_folder"]


def cache_folder() -> Path:
    """Return $LATLAB_CACHE, else latlab's folder in the user's cache folder. Its content can be made again."""
    named = os.environ.get("LATLAB_CACHE")
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("latlab")


def writable_folder(path: str | Path) -> Path:
    """Return `path` as a folder; it is made if it does not exist.

    Raises:
        BadInputError: it cannot be made, or is not writable.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise BadInputError(f"the folder {folder} cannot be written", "Name another with --out.")
    return folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end of the block the file takes the place of `path`, whole or not at all.

    Raises:
        BadInputError: the file cannot be written. What was at `path` before is untouched.
    """
    try:
        with replaced_file(path) as part:
            yield part
    except OSError as error:
        raise BadInputError(
            f"cannot write {path}: {error.strerror or error}",
            "Free some space there, or name another place with --out.",
        ) from error


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, as `whole_file` does; a failure to write is raised as it is.

    Raises:
        OSError: the file cannot be written. What was at `path` before is untouched.
    """
    path = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    if path.exists() and not path.is_file():
        what = os.strerror(errno.EISDIR) if path.is_dir() else "it is no ordinary file"
        raise OSError(errno.EISDIR, what, str(path))  # a file must not take the place of /dev/null, say
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
