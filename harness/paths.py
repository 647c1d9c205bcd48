"""The cache folder, and folders that the user names."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latlab.harness.errors import BadInputError

__all__ = [
    "BESIDE_DATABASES",
    "FULL",
    "cache_folder",
    "cannot_write",
    "replaced_file",
    "spare_databases",
    "whole_file",
    "whole_folder",
    "writable_folder",
]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says if a disk, a quota or a limit on files is exhausted."""
LEFT_AFTER_S = 3600.0
"""Unfinished files of this age belong to nobody: their writers were killed."""
_DATABASE = b"SQLite format 3\0"
"""The first bytes of an SQLite database, such as a store."""
BESIDE_DATABASES = ("-wal", "-shm", "-journal")
"""Ends of the names of files that belong to the database of the name before them: its last changes are there."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


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
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; at the end of the block the file takes the place of `path`, whole or not at all.

    Raises:
        BadInputError: the file cannot be written, or is a database and would become something else. What was at
            `path` before is untouched.
    """
    try:
        with replaced_file(path) as part:
            yield part
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to, as `whole_file` does; a failure to write is raised as it is.

    Raises:
        OSError: the file cannot be written. What was at `path` before is untouched.
        BadInputError: as `spare_databases`.
    """
    path = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    if path.exists() and not path.is_file():
        what = os.strerror(errno.EISDIR) if path.is_dir() else "it is no ordinary file"
        raise OSError(errno.EISDIR, what, str(path))  # a file must not take the place of /dev/null, say
    part = _part(path)
    try:
        yield part
        spare_databases(path, part)
        if path.exists():
            shutil.copymode(path, part)
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, *, keep_others: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; at the end of the block it takes the place of `path`, whole or not at all.

    Readers of `path` see all of the old files or all of the new ones. Where one folder cannot take the place of
    another (the working folder, a mount), and on file systems that cannot exchange two names, each entry of the
    folder is replaced by itself.

    Args:
        path: the folder. It may be missing; folders above it are made.
        keep_others: whether files and folders of `path` that the new folder lacks stay there.

    Raises:
        BadInputError: the folder cannot be written, or a database would be lost. What was at `path` before is
            untouched.
    """
    path = Path(os.path.realpath(path))
    part = None
    try:
        if path.exists() and not path.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = not path.is_dir() or _replaceable(path)
        part = _part(path) if beside else _part(path / "new")
        part.mkdir()
        yield part
        _spare_databases_in(path, part, keep_others)
        if path.is_dir():
            shutil.copymode(path, part)
        _sync_tree(part)
        if not (beside and _swap(part, path, keep_others)):
            _replace_entries(part, path, keep_others)
        _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def cannot_write(path: str | Path, error: OSError) -> BadInputError:
    """Return the error that says why `path` cannot be written, and the way out that fits the reason."""
    hint = "Free some space there, or name another place." if error.errno in FULL else "Name another place."
    reason = error.strerror or str(error)
    if error.errno and "[errno" in reason:  # pyarrow's words, with the name of the unfinished file
        reason = os.strerror(error.errno)
    return BadInputError(f"cannot write {path}: {reason}", hint)


def spare_databases(path: str | Path, new: Path | None = None) -> None:
    """Raise `BadInputError` if a database at `path`, such as a store, would be lost to a file that is none.

    Args:
        path: the file that is to be replaced.
        new: what takes its place; None if that will be no database.
    """
    path = Path(path)
    ends = [end for end in BESIDE_DATABASES if path.name.endswith(end)]
    own = path.with_name(path.name.removesuffix(ends[0])) if ends and path.name not in ends else path
    if path.is_file() and _is_database(own) and not (own == path and new is not None and _is_database(new)):
        what = "an SQLite database, such as a store" if own == path else f"a part of the database {own}"
        raise BadInputError(f"{path} is {what}, and would be lost", "Name another file, or move that one away.")


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_DATABASE)) == _DATABASE
    except OSError:
        return False


def _spare_databases_in(path: Path, new: Path, keep_others: bool) -> None:
    """Raise `BadInputError` if a database in the folder `path` would be lost to the content of the folder `new`."""
    for place, _, files in os.walk(path):
        for one in (Path(place, name) for name in files):
            inside = one.relative_to(path)
            if one.is_relative_to(new) or (keep_others and not (new / inside.parts[0]).exists()):
                continue
            if not one.is_symlink():
                spare_databases(one, new / inside)


def _part(path: Path) -> Path:
    """Return a name beside `path` for what is being written, and remove what killed writers have left there."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_AFTER_S:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _sync(path: Path) -> None:
    """Have the disk store a file, or the names in a folder: a power cut could leave a name without its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for place, _, files in os.walk(folder):
        for name in files:
            _sync(Path(place, name))
        _sync(Path(place))


def _replaceable(folder: Path) -> bool:
    """Return whether another folder can take the place of this one: not if somebody works in it, or it is a mount."""
    return not (Path.cwd().is_relative_to(folder) or os.path.ismount(folder)) and os.access(folder.parent, os.W_OK)


def _swap(new: Path, path: Path, keep_others: bool) -> bool:
    """Put the folder `new` at `path` in one step; return False if this file system cannot."""
    if not path.exists():
        new.rename(path)
        return True
    if keep_others:
        for one in path.iterdir():
            if not (new / one.name).exists():
                _link(one, new / one.name)
    return _exchange(new, path)


def _link(old: Path, new: Path) -> None:
    """Give a file, or each file of a folder, a second name, or a copy where there are no second names (FAT)."""

    def link(old: str, new: str) -> None:
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError:
            shutil.copy2(old, new, follow_symlinks=False)

    if old.is_dir() and not old.is_symlink():
        shutil.copytree(old, new, symlinks=True, copy_function=link)
    else:
        link(str(old), str(new))


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step (renameat2 of Linux 3.15); return False where there is no such call."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBUSY, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _replace_entries(new: Path, path: Path, keep_others: bool) -> None:
    """Move each entry of `new` to `path`, over the old one; without `keep_others`, remove the other old ones."""
    names = {one.name for one in new.iterdir()}
    for name in sorted(names):
        old = path / name
        if old.is_dir() and not old.is_symlink():
            aside = _part(old)
            old.rename(aside)
            (new / name).rename(old)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            (new / name).replace(old)
    for one in [] if keep_others else list(path.iterdir()):
        if one.name not in names and one != new:
            shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
